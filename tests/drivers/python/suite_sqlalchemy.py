"""SQLAlchemy over psycopg 3, psycopg2 and asyncpg: its pool, its reflection and its batches."""

import asyncio

from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, create_engine, event, func, inspect, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session, relationship

import common
from common import case, raises

ADDRESS = f"scram_user:scram%20secret@{common.HOST}:{common.PORT}/{common.DATABASE}"
DRIVERS = ("psycopg", "psycopg2")


def engine(driver, **more):
    more.setdefault("pool_size", 5)
    return create_engine(f"postgresql+{driver}://{ADDRESS}", **more)


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "alchemy_author"
    id = Column(Integer, primary_key=True)
    name = Column(String, unique=True)
    books = relationship("Book", back_populates="author")


class Book(Base):
    __tablename__ = "alchemy_book"
    id = Column(Integer, primary_key=True)
    title = Column(String)
    author_id = Column(ForeignKey("alchemy_author.id"))
    author = relationship("Author", back_populates="books")


@case
def objects_are_stored_and_found():
    for driver in DRIVERS:
        db = engine(driver)
        Base.metadata.drop_all(db)
        Base.metadata.create_all(db)
        with Session(db) as session:
            session.add_all(Author(name=f"author {n}", books=[Book(title=f"{n}/{m}") for m in range(3)]) for n in range(200))
            session.commit()
        with Session(db) as session:
            assert session.scalar(select(func.count()).select_from(Book)) == 600
            author = session.scalars(select(Author).where(Author.name == "author 7")).one()
            assert sorted(book.title for book in author.books) == ["7/0", "7/1", "7/2"]
            session.add(Author(name="author 7"))
            raises(IntegrityError, session.flush)
            session.rollback()
            with session.begin_nested():
                session.add(Author(name="kept"))
            try:
                with session.begin_nested():
                    session.add(Author(name="kept"))
                    session.flush()
            except IntegrityError:
                pass
            session.commit()
            assert session.scalar(select(func.count()).select_from(Author)) == 201
        Base.metadata.drop_all(db)
        db.dispose()


@case
def tables_are_reflected():
    for driver in DRIVERS:
        db = engine(driver)
        Base.metadata.create_all(db)
        found = inspect(db)
        assert found.has_table("alchemy_book")
        assert {column["name"] for column in found.get_columns("alchemy_book")} == {"id", "title", "author_id"}
        assert found.get_foreign_keys("alchemy_book")[0]["referred_table"] == "alchemy_author"
        reflected = Table("alchemy_book", MetaData(), autoload_with=db)
        assert set(reflected.columns.keys()) == {"id", "title", "author_id"}
        Base.metadata.drop_all(db)
        db.dispose()


@case
def rows_stream_through_a_server_side_cursor():
    for driver in DRIVERS:
        db = engine(driver)
        with db.connect() as connection:
            rows = connection.execution_options(stream_results=True, yield_per=100).execute(text("SELECT generate_series(1, 2000)"))
            assert sum(row[0] for row in rows) == 2001000
        db.dispose()


@case
def settings_of_the_connect_event_stay():
    for driver in DRIVERS:
        db = engine(driver)

        @event.listens_for(db, "connect")
        def configure(connection, _record):
            cursor = connection.cursor()
            cursor.execute("SET statement_timeout = '4321ms'")
            cursor.execute("SET TIME ZONE 'Asia/Tokyo'")
            connection.commit()

        plain = engine(driver)
        for _ in range(5):
            with db.connect() as one, plain.connect() as two:
                assert one.scalar(text("SHOW statement_timeout")) == "4321ms"
                assert one.scalar(text("SHOW timezone")) == "Asia/Tokyo"
                assert two.scalar(text("SHOW statement_timeout")) == "0"
        db.dispose()
        plain.dispose()


@case
def isolation_levels_hold_for_their_connection():
    for driver in DRIVERS:
        db = engine(driver)
        for level in ("SERIALIZABLE", "REPEATABLE READ", "AUTOCOMMIT"):
            with db.connect().execution_options(isolation_level=level) as connection, db.connect() as other:
                wanted = "read committed" if level == "AUTOCOMMIT" else level.lower()
                assert connection.scalar(text("SHOW transaction_isolation")) == wanted
                assert other.scalar(text("SHOW transaction_isolation")) == "read committed"
        db.dispose()


@case
def the_pool_recovers_from_a_restart_of_the_server():
    for driver in DRIVERS:
        db = engine(driver, pool_pre_ping=True)
        with db.connect() as busy:
            busy.execute(text("SELECT 1"))
            common.restart_postgres()
            error = raises(DBAPIError, busy.execute, text("SELECT 1"))
            assert error.connection_invalidated, error
        with db.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
        db.dispose()


@case
async def the_async_engine_serves_many_tasks():
    for driver in ("asyncpg", "psycopg"):
        db = create_async_engine(f"postgresql+{driver}://{ADDRESS}", pool_size=10)

        async def work(me):
            for turn in range(10):
                async with db.begin() as connection:
                    found = await connection.scalar(text("SELECT CAST(:who AS text)"), {"who": f"{me}/{turn}"})
                    assert found == f"{me}/{turn}"

        await asyncio.gather(*(work(n) for n in range(20)))
        async with db.connect() as connection:
            rows = await connection.stream(text("SELECT generate_series(1, 500)"))
            assert len([row async for row in rows]) == 500
        await db.dispose()


common.run()
