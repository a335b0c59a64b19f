//! Reads Prometheus' text format, and takes offence at what a scrape would, or at what its conventions forbid.

use std::collections::{BTreeMap, HashMap};

/// A scrape.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    /// Types of the families.
    kinds: HashMap<String, String>,
    /// Values by name and labels.
    values: BTreeMap<(String, BTreeMap<String, String>), f64>,
}

impl Exposition {
    /// The value with exactly these labels, else that of the one series that has these among others.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let exact = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let exact = (name.to_owned(), exact.collect());
        if let Some(value) = self.values.get(&exact) {
            return Some(*value);
        }
        let has = |of: &BTreeMap<String, String>| {
            labels
                .iter()
                .all(|(k, v)| of.get(*k).is_some_and(|has| has == v))
        };
        let mut found = self
            .values
            .iter()
            .filter(|((n, of), _)| n == name && has(of));
        let (_, value) = found.next()?;
        let more = found.next();
        assert_eq!(more, None, "{name} {labels:?} is not one series");
        Some(*value)
    }
}

/// Reads a text; panics where something is wrong with it.
pub(crate) fn read(text: &str) -> Exposition {
    assert!(text.ends_with('\n'), "the last line ends");
    let mut found = Exposition::default();
    let mut helped = String::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a text behind the name");
            assert!(help.ends_with('.') && help.len() > 3, "{line}");
            helped = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type behind the name");
            assert_eq!(name, helped, "each type stands behind its help");
            assert!(
                ["counter", "gauge", "histogram", "untyped"].contains(&kind),
                "{line}"
            );
            assert_eq!(
                kind == "counter",
                kind != "untyped" && name.ends_with("_total"),
                "{line}"
            );
            let before = found.kinds.insert(name.to_owned(), kind.to_owned());
            assert_eq!(before, None, "{name} comes twice");
            family = name.to_owned();
        } else {
            let (name, labels, value) = sample(line);
            let suffix = name
                .strip_prefix(&*family)
                .unwrap_or_else(|| panic!("{line} is not of {family}"));
            match found.kinds[&family].as_str() {
                "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
                "counter" => assert!(suffix.is_empty() && value >= 0.0, "{line}"),
                _ => assert_eq!(suffix, "", "{line}"),
            }
            let before = found.values.insert((name, labels), value);
            assert_eq!(before, None, "{line} comes twice");
        }
    }
    found.histograms_add_up();
    found
}

impl Exposition {
    fn histograms_add_up(&self) {
        let mut buckets: BTreeMap<_, Vec<(f64, f64)>> = BTreeMap::new();
        for ((name, labels), value) in &self.values {
            let Some(base) = name.strip_suffix("_bucket") else {
                continue;
            };
            let mut labels = labels.clone();
            let bound = match labels.remove("le").expect("a bucket has a bound").as_str() {
                "+Inf" => f64::INFINITY,
                bound => bound.parse().expect("a bound is a number"),
            };
            buckets
                .entry((base.to_owned(), labels))
                .or_default()
                .push((bound, *value));
        }
        for ((base, labels), mut of) in buckets {
            of.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(
                of.is_sorted_by(|a, b| a.1 <= b.1),
                "{base} {labels:?}: {of:?}"
            );
            let (bound, all) = *of.last().expect("there is one");
            let count = self.values[&(format!("{base}_count"), labels.clone())];
            assert!(bound.is_infinite() && all == count, "{base} {labels:?}");
            assert!(
                self.values.contains_key(&(format!("{base}_sum"), labels)),
                "{base}"
            );
        }
    }
}

/// `name{label="value",…} number`.
fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (series, value) = line.rsplit_once(' ').expect("a number behind the name");
    let value = value
        .parse()
        .unwrap_or_else(|_| panic!("{line}: no number"));
    let Some((name, rest)) = series.split_once('{') else {
        return (series.to_owned(), BTreeMap::new(), value);
    };
    let mut labels = BTreeMap::new();
    let mut rest = rest.strip_suffix('}').expect("a closing brace");
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"").expect("a value in quotes");
        let mut of = String::new();
        let mut signs = after.char_indices();
        let end = loop {
            match signs.next().expect("a closing quote") {
                (end, '"') => break end,
                (_, '\\') => match signs.next().expect("a sign behind a backslash").1 {
                    'n' => of.push('\n'),
                    other => of.push(other),
                },
                (_, other) => of.push(other),
            }
        };
        assert!(
            labels.insert(label.to_owned(), of).is_none(),
            "{line}: a label twice"
        );
        rest = after[end + 1..].trim_start_matches(',');
    }
    (name.to_owned(), labels, value)
}
