//! Floods of one line: the first ones are written, further ones counted, and the count is written when their time is over.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use pgdog_config::Dedup as Limit;
use tokio::sync::Notify;
use tracing::callsite::Identifier;
use tracing::field::{Field, Value, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Different lines that are watched at once. Above, lines are written as if this were switched off.
const MOST: usize = 1024;

/// How often, at least and at most, lines are looked at whose time is over.
const STEPS: [Duration; 2] = [Duration::from_secs(1), Duration::from_millis(10)];

/// Fields that are other ones each time that the same happens. They stand in a line, but do not tell it from others.
const VARYING: [&str; 2] = ["duration_ms", "client_addr"];

/// What was written lately.
#[derive(Debug, Default)]
pub(super) struct Dedup {
    /// Asked for each line; the rest only when it says so.
    on: AtomicBool,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    limit: Option<Limit>,
    lines: HashMap<(Identifier, String), Line>,
    /// Repetitions whose time is over, not yet told.
    over: Vec<Repeated>,
    /// Who tells of repetitions just now: these lines are none themselves.
    teller: Option<ThreadId>,
}

/// A line that was written.
#[derive(Debug)]
struct Line {
    metadata: &'static Metadata<'static>,
    since: Instant,
    times: usize,
}

/// A line that was written too often.
#[derive(Debug)]
struct Repeated {
    metadata: &'static Metadata<'static>,
    text: String,
    times: usize,
    within: Duration,
}

impl Dedup {
    /// What counts as a repetition from now on; `None` is nothing.
    pub(super) fn configure(&self, limit: Option<Limit>) {
        if self.state().limit == limit {
            return;
        }
        self.flush();
        self.state().limit = limit;
        self.on.store(limit.is_some(), Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Tells of all repetitions up to now.
    pub(super) fn flush(&self) {
        let now = Instant::now();
        let over = self.state().ends(now, |_| true);
        self.tell(over);
    }

    /// Tells of repetitions whenever their time is over.
    pub(super) async fn tell_repetitions(&self) {
        loop {
            let limit = self.state().limit;
            let Some(limit) = limit else {
                self.changed.notified().await;
                continue;
            };
            pgdog_net::timer::sleep(limit.window.clamp(STEPS[1], STEPS[0])).await;
            let now = Instant::now();
            let over = self
                .state()
                .ends(now, |line| now.duration_since(line.since) >= limit.window);
            self.tell(over);
        }
    }

    /// Writes them as lines of the same place and level, so that the same filter lets them through.
    fn tell(&self, over: Vec<Repeated>) {
        if over.is_empty() {
            return;
        }
        self.state().teller = Some(std::thread::current().id());
        for repeated in over {
            let fields = repeated.metadata.fields();
            let Some(message) = fields.field("message") else {
                continue;
            };
            let text = format_args!(
                "{}: repeated {} more times in {:.1} s",
                repeated.text,
                repeated.times,
                repeated.within.as_secs_f64()
            );
            let value: &dyn Value = &text;
            // What the macros of tracing make of a call.
            Event::dispatch(
                repeated.metadata,
                &fields.value_set(&[(&message, Some(value))]),
            );
        }
        self.state().teller = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether a line is to be written.
    fn admits(&mut self, metadata: &'static Metadata<'static>, text: String, now: Instant) -> bool {
        let Some(limit) = self.limit else { return true };
        let key = (metadata.callsite(), text);
        if let Some(line) = self.lines.get_mut(&key)
            && now.duration_since(line.since) < limit.window
        {
            line.times += 1;
            return line.times <= limit.threshold;
        }
        if let Some((key, line)) = self.lines.remove_entry(&key) {
            self.over.extend(line.repeated(key.1, limit, now));
        }
        if self.lines.len() >= MOST {
            let over = self.ends(now, |line| now.duration_since(line.since) >= limit.window);
            self.over = over;
        }
        if self.lines.len() < MOST {
            let line = Line {
                metadata,
                since: now,
                times: 1,
            };
            self.lines.insert(key, line);
        }
        true
    }

    /// Forgets the lines that have ended; what there is to tell of them, and of those before.
    fn ends(&mut self, now: Instant, ended: impl Fn(&Line) -> bool) -> Vec<Repeated> {
        let mut over = std::mem::take(&mut self.over);
        if let Some(limit) = self.limit {
            let gone = self.lines.extract_if(|_, line| ended(line));
            over.extend(gone.filter_map(|((_, text), line)| line.repeated(text, limit, now)));
        }
        over
    }
}

impl Line {
    fn repeated(self, text: String, limit: Limit, now: Instant) -> Option<Repeated> {
        let times = self.times.checked_sub(limit.threshold + 1)? + 1;
        Some(Repeated {
            metadata: self.metadata,
            text,
            times,
            within: now.duration_since(self.since),
        })
    }
}

/// Leaves repetitions out, for all layers beside it.
pub(super) struct DedupLayer(pub(super) Arc<Dedup>);

impl<S: Subscriber> Layer<S> for DedupLayer {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        if !self.0.on.load(Ordering::Relaxed)
            || event.metadata().fields().field("message").is_none()
        {
            return true;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let mut state = self.0.state();
        state.teller == Some(std::thread::current().id())
            || state.admits(event.metadata(), text.join(), Instant::now())
    }
}

/// A line as it is written, but for its time, its level and what varies.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn join(mut self) -> String {
        self.message.push_str(&self.fields);
        self.message
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if VARYING.contains(&field.name()) {
            return;
        }
        // Writing to a string fails only when the value's own formatting does.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use pgdog_config::Dedup as Limit;
    use tracing_subscriber::EnvFilter;
    use tracing_subscriber::layer::SubscriberExt;

    use super::{Dedup, DedupLayer, MOST};

    /// What was logged.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Written {
        fn lines(&self) -> Vec<String> {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            // Times in seconds are those of the machine.
            text.lines()
                .map(|line| line.split(" more times").next().unwrap().trim().to_owned())
                .collect()
        }
    }

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn limit(threshold: usize, window: Duration) -> Option<Limit> {
        Some(Limit { threshold, window })
    }

    const LONG: Duration = Duration::from_secs(3600);

    fn logged(limit: Option<Limit>, work: impl FnOnce(&Dedup, &Written)) -> Vec<String> {
        let written = Written::default();
        let dedup = Arc::new(Dedup::default());
        dedup.configure(limit);
        let writer = written.clone();
        let subscriber = tracing_subscriber::registry()
            .with(EnvFilter::new("info"))
            .with(DedupLayer(dedup.clone()))
            .with(
                tracing_subscriber::fmt::layer()
                    .without_time()
                    .with_ansi(false)
                    .with_target(false)
                    .with_writer(move || writer.clone()),
            );
        tracing::subscriber::with_default(subscriber, || work(&dedup, &written));
        written.lines()
    }

    fn fails(times: usize, server: &str) {
        for _ in 0..times {
            tracing::warn!(user = %"bob", "failed to connect to {server}");
        }
    }

    #[test]
    fn repetitions_are_counted_and_told_once() {
        let lines = logged(limit(2, LONG), |dedup, _| {
            fails(5, "a");
            fails(1, "b");
            tracing::info!("else");
            dedup.flush();
            dedup.flush();
        });
        assert_eq!(
            lines,
            [
                "WARN failed to connect to a user=\"bob\"",
                "WARN failed to connect to a user=\"bob\"",
                "WARN failed to connect to b user=\"bob\"",
                "INFO else",
                "WARN failed to connect to a user=\"bob\": repeated 3",
            ]
            .map(|line| line.replace("\"bob\"", "bob"))
        );
    }

    #[test]
    fn how_long_something_took_and_for_whom_does_not_make_it_another_line() {
        let lines = logged(limit(1, LONG), |dedup, _| {
            for (duration_ms, query) in [(1.5, "a"), (2.5, "a"), (3.5, "b")] {
                tracing::info!(duration_ms, client_addr = duration_ms, query, "slow");
            }
            dedup.flush();
        });
        assert_eq!(
            lines,
            [
                "INFO slow duration_ms=1.5 client_addr=1.5 query=\"a\"",
                "INFO slow duration_ms=3.5 client_addr=3.5 query=\"b\"",
                "INFO slow query=\"a\": repeated 1",
            ]
        );
    }

    #[test]
    fn after_the_window_a_line_is_written_again_and_its_repetitions_are_not_lost() {
        let lines = logged(limit(1, Duration::from_millis(20)), |dedup, _| {
            fails(3, "a");
            let begin = std::time::Instant::now();
            while begin.elapsed() < Duration::from_millis(30) {
                std::thread::yield_now();
            }
            fails(1, "a");
            dedup.flush();
        });
        // A slow machine may see the first window end earlier; nothing is lost then either.
        let first = "WARN failed to connect to a user=bob";
        let told: usize = lines
            .iter()
            .filter_map(|line| line.rsplit_once("repeated ")?.1.parse::<usize>().ok())
            .sum();
        let whole = lines.iter().filter(|line| *line == first).count();
        assert!(whole >= 2, "{lines:?}");
        assert_eq!(whole + told, 4, "{lines:?}");
    }

    #[test]
    fn the_end_of_a_window_is_told_without_another_line() {
        let window = Duration::from_millis(20);
        let lines = logged(limit(1, window), |dedup, written| {
            fails(3, "a");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap();
            let told = || {
                let lines = written.lines();
                lines.iter().any(|line| line.contains("repeated"))
            };
            runtime.block_on(async {
                tokio::select! {
                    () = dedup.tell_repetitions() => {}
                    () = async { while !told() { pgdog_net::timer::sleep(window).await } } => {}
                }
            });
        });
        assert!(lines.len() >= 2, "{lines:?}");
    }

    #[test]
    fn switched_off_everything_is_written() {
        let lines = logged(None, |dedup, _| {
            fails(5, "a");
            dedup.configure(limit(1, LONG));
            fails(5, "a");
            dedup.configure(None);
            fails(5, "a");
        });
        assert_eq!(lines.len(), 5 + 2 + 5, "{lines:?}");
        assert!(lines[6].ends_with("repeated 4"), "{lines:?}");
    }

    #[test]
    fn what_the_level_leaves_out_is_not_counted() {
        let lines = logged(limit(1, LONG), |dedup, _| {
            (0..5).for_each(|_| tracing::debug!("not seen"));
            dedup.flush();
        });
        assert!(lines.is_empty(), "{lines:?}");
    }

    #[test]
    fn a_flood_of_different_lines_is_written_and_takes_no_more_memory() {
        let lines = logged(limit(1, LONG), |dedup, _| {
            (0..MOST + 50).for_each(|number| fails(2, &number.to_string()));
            assert_eq!(dedup.state().lines.len(), MOST);
        });
        assert_eq!(lines.len(), MOST + 100);
    }
}
