"""What the suites of the Python drivers share: where to connect, and running the tests."""

import asyncio
import inspect
import os
import subprocess
import sys
import time
import traceback

HOST = "127.0.0.1"
PORT = int(os.environ["PGDOG_PORT"])
CA = os.environ["PGDOG_CA"]
DATABASE = "drivers"
DIRECT = bool(os.environ.get("DIRECT"))
PASSWORDS = {kind + "_user": kind + " secret" for kind in ("scram", "md5", "plain")} | {"trust_user": None}

_cases = []


def case(function):
    """Registers a test; its name is the sentence that it proves."""
    _cases.append(function)
    return function


def restart_postgres():
    subprocess.run([os.environ["RESTART_POSTGRES"]], check=True, timeout=60)


async def restart_postgres_async():
    await asyncio.to_thread(restart_postgres)


def within(seconds, condition):
    """Waits until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)


def raises(kind, function, *arguments, **keywords):
    """The exception of this kind that the call raises."""
    try:
        function(*arguments, **keywords)
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected")


async def raises_async(kind, awaitable):
    try:
        await awaitable
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected")


def run():
    """Runs the tests that are named on the command line, or all."""
    failed = 0
    for function in _cases:
        name = function.__name__.replace("_", " ")
        if sys.argv[1:] and not any(word in name for word in sys.argv[1:]):
            continue
        try:
            if inspect.iscoroutinefunction(function):
                asyncio.run(asyncio.wait_for(function(), 40))
            else:
                function()
            print("ok", name, flush=True)
        except BaseException as error:
            failed += 1
            print(f"FAIL {name}: {type(error).__name__}: {error}", flush=True)
            traceback.print_exc(file=sys.stdout)
    sys.exit(1 if failed else 0)
