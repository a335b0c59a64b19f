//! The tables: counting, merging, forgetting.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::{Described, MAX_TEXT, QueryKey, QueryRow, QueryStats, Run};

fn key(fingerprint: u64) -> QueryKey {
    QueryKey {
        // As spread as a fingerprint is.
        fingerprint: fingerprint.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        account: 1,
    }
}

fn told(text: &str) -> Described {
    Described {
        text: text.into(),
        user: "alice".into(),
        database: "shop".into(),
    }
}

fn run(elapsed_us: u64) -> Run {
    Run {
        elapsed_us,
        rows: 1,
        error: None,
        at: elapsed_us,
    }
}

fn texts(rows: &[QueryRow]) -> Vec<&str> {
    rows.iter().map(|row| &*row.text).collect()
}

#[test]
fn runs_are_added_up_over_workers_and_the_longest_comes_first() {
    let stats = QueryStats::new(2, 10);
    for worker in 0..2 {
        for elapsed in [100, 200, 300] {
            stats.record(worker, key(1), || told("slow"), run(elapsed));
        }
        stats.record(worker, key(2), || told("quick"), run(10));
    }
    let failed = Run {
        error: Some(*b"57014"),
        rows: 0,
        ..run(1)
    };
    stats.record(1, key(2), || told("quick"), failed);
    let rows = stats.rows();
    assert_eq!(texts(&rows), ["slow", "quick"]);
    let (slow, quick) = (&rows[0], &rows[1]);
    assert_eq!((slow.calls, slow.errors, slow.rows), (6, 0, 6));
    assert_eq!((slow.total_us, slow.min_us, slow.max_us), (1200, 100, 300));
    assert_eq!((quick.calls, quick.errors, quick.rows), (3, 1, 2));
    assert_eq!(slow.last_seen, 300);
    assert_eq!((&*slow.user, &*slow.database), ("alice", "shop"));
    assert!(slow.quantile(0.5).abs_diff(200) <= 25);
    assert!(slow.quantile(0.99) <= 300, "no longer than the longest");
}

#[test]
fn failures_are_told_apart_by_sqlstate_as_far_as_there_are_few() {
    let stats = QueryStats::new(2, 10);
    for number in 0..20_u8 {
        for worker in 0..2 {
            let failed = Run {
                error: Some(*format!("42P{number:02}").as_bytes().first_chunk().unwrap()),
                ..run(1)
            };
            stats.record(worker, key(1), || told("bad"), failed);
        }
    }
    let row = &stats.rows()[0];
    assert_eq!((row.errors, row.codes[0]), (40, (*b"42P00", 2)));
    assert_eq!(row.codes.len(), 9);
    assert_eq!(row.codes.last(), Some(&(*b"other", 24)));
}

#[test]
fn another_user_is_another_row() {
    let stats = QueryStats::new(1, 10);
    for account in 0..3 {
        let key = QueryKey { account, ..key(1) };
        stats.record(0, key, || told("select $1"), run(1));
    }
    assert_eq!(stats.rows().len(), 3);
}

#[test]
fn a_text_is_asked_for_once() {
    let stats = QueryStats::new(1, 10);
    let asked = AtomicUsize::new(0);
    for _ in 0..5 {
        let told = || {
            asked.fetch_add(1, Ordering::Relaxed);
            told("select $1")
        };
        stats.record(0, key(1), told, run(1));
    }
    assert_eq!(asked.into_inner(), 1);
    assert_eq!(stats.rows()[0].calls, 5);
}

#[test]
fn a_full_table_forgets_what_is_asked_least_and_longest_ago() {
    let stats = QueryStats::new(1, 100);
    for number in 0..20 {
        for _ in 0..10 {
            stats.record(0, key(number), || told("often"), run(number));
        }
    }
    for number in 20..400 {
        stats.record(0, key(number), || told("once"), run(number));
    }
    let rows = stats.rows();
    assert!(rows.len() <= 100, "{}", rows.len());
    assert_eq!(texts(&rows).iter().filter(|&&t| t == "often").count(), 20);
    let newest = rows.iter().map(|row| row.last_seen).max();
    assert_eq!(newest, Some(399));
    let (forgotten, kept) = (stats.forgotten(), rows.iter().map(|row| row.calls));
    assert_eq!(forgotten.queries, 400 - rows.len() as u64);
    assert_eq!(forgotten.calls + kept.sum::<u64>(), 20 * 10 + 380);
    assert_eq!(forgotten.rows, forgotten.calls);
}

#[test]
fn what_was_asked_often_once_does_not_stay_for_ever() {
    let stats = QueryStats::new(1, 20);
    for _ in 0..5 {
        stats.record(0, key(0), || told("old"), run(1));
    }
    for number in 1..5_000 {
        stats.record(0, key(number % 50 + 1), || told("new"), run(number));
    }
    assert!(!texts(&stats.rows()).contains(&"old"));
}

#[test]
fn memory_is_bounded_whatever_is_asked() {
    let stats = QueryStats::new(2, 50);
    let long = "ü".repeat(100_000);
    let shape = stats.shape(0, long.as_bytes());
    for number in 0..2_000 {
        stats.record(number as usize, key(number), || told(&shape.text), run(1));
    }
    for table in &stats.tables {
        let entries = table.lock();
        assert!(entries.rows.len() <= 50 && entries.rows.capacity() <= 128);
        let bytes: usize = entries.rows.values().map(|e| e.row.text.len()).sum();
        assert!(bytes <= 50 * MAX_TEXT, "{bytes}");
        assert!(entries.rows.values().all(|e| e.row.text.ends_with(" …")));
    }
    assert!(stats.rows().len() <= 50);
}

#[test]
fn a_reset_begins_anew_and_no_entries_means_none() {
    let stats = QueryStats::new(2, 10);
    stats.record(0, key(1), || told("select $1"), run(1));
    stats.reset();
    assert!(stats.rows().is_empty());
    stats.record(1, key(1), || told("select $1"), run(1));
    assert_eq!(stats.rows()[0].calls, 1);
    stats.set_max_entries(0);
    stats.record(1, key(1), || told("select $1"), run(1));
    assert!(stats.rows().is_empty());
}

#[test]
fn a_smaller_table_keeps_what_is_used_most() {
    let stats = QueryStats::new(1, 10);
    for number in 0..10 {
        for _ in 0..=number {
            stats.record(0, key(number), || told(&number.to_string()), run(1));
        }
    }
    stats.set_max_entries(3);
    assert_eq!(texts(&stats.rows()), ["9", "8", "7"]);
}

#[test]
fn nothing_is_lost_while_others_count_and_read() {
    const ROUNDS: u64 = 20_000;
    let stats = QueryStats::new(3, 8);
    thread::scope(|scope| {
        for worker in 0..3 {
            let stats = &stats;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    stats.record(worker, key(round % 4), || told("select $1"), run(5));
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..200 {
                for row in stats.rows() {
                    assert_eq!(row.total_us, row.calls * 5, "a row is read whole");
                }
            }
        });
    });
    let rows = stats.rows();
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| row.calls == 3 * ROUNDS / 4));
}
