//! Files that name other files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::hba::{DatabaseName, Maps, Rules};
use crate::{ProblemCode, Problems};

/// A directory of its own, gone when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(files: &[(&str, &str)]) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("pgdog-hba-{}-{number}", std::process::id()));
        for (name, text) in files {
            let file = path.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        Self(path)
    }

    fn rules(&self) -> Result<Rules, Problems> {
        Rules::load(&self.0.join("hba"))
    }

    /// The databases in the order of the rules, with the name and the line of their file.
    fn databases(&self) -> Vec<(String, u32, Vec<String>)> {
        let rules = self.rules().unwrap_or_else(|problems| panic!("{problems}"));
        let found = rules.iter().map(|rule| {
            let file = Path::new(rule.place.file.as_ref());
            let names = rule.databases.iter().map(|name| match name {
                DatabaseName::Name(name) => name.clone(),
                other => other.to_string(),
            });
            let name = file.file_name().unwrap().to_str().unwrap();
            (name.to_owned(), rule.place.line, names.collect())
        });
        found.collect()
    }

    fn problems(&self) -> Vec<(Option<u32>, ProblemCode, String)> {
        let problems = self.rules().expect_err("it is broken");
        let told = problems
            .0
            .into_iter()
            .map(|problem| (problem.line, problem.code, problem.message));
        told.collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn found(file: &str, line: u32, names: &[&str]) -> (String, u32, Vec<String>) {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    (file.to_owned(), line, names)
}

#[test]
fn included_rules_stand_where_the_directive_stands() {
    let directory = Directory::new(&[
        (
            "hba",
            "local a all trust\ninclude sub/one\ninclude_if_exists missing\ninclude_if_exists \"sub/t wo\"\ninclude_dir dir\nlocal z all trust\n",
        ),
        ("sub/one", "# nothing\nlocal b all trust\ninclude three"),
        ("sub/three", "local c all trust"),
        ("sub/t wo", "local d all trust"),
        ("dir/2.conf", "local f all trust"),
        ("dir/10.conf", "local e all trust"),
        ("dir/.hidden.conf", "nonsense"),
        ("dir/x.txt", "nonsense"),
        ("dir/sub.conf/x.conf", "nonsense"),
    ]);
    assert_eq!(
        directory.databases(),
        [
            found("hba", 1, &["a"]),
            found("one", 2, &["b"]),
            found("three", 1, &["c"]),
            found("t wo", 1, &["d"]),
            found("10.conf", 1, &["e"]),
            found("2.conf", 1, &["f"]),
            found("hba", 6, &["z"]),
        ]
    );
}

#[test]
fn names_come_from_files() {
    let directory = Directory::new(&[
        (
            "hba",
            "local a,@names,z all trust\nlocal @\"two words\" all trust\n",
        ),
        ("names", "# these\nb c,d\n\n@more \"@x\" all\n"),
        ("more", "e"),
        ("two words", "f"),
    ]);
    assert_eq!(
        directory.databases(),
        [
            found("hba", 1, &["a", "b", "c", "d", "e", "@x", "all", "z"]),
            found("hba", 2, &["f"]),
        ]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_told_where_it_is_named() {
    let directory = Directory::new(&[
        (
            "hba",
            "include missing\nlocal @missing all trust\ninclude_dir missing\ninclude .\ninclude_if_exists .\nlocal @empty all trust\ninclude\ninclude a b\ninclude a,b\ninclude \"\"\n",
        ),
        ("empty", "# nobody\n"),
    ]);
    let problems = directory.problems();
    let told: Vec<_> = problems
        .iter()
        .map(|(line, code, _)| (line.unwrap(), *code))
        .collect();
    assert_eq!(
        told,
        [
            (1, ProblemCode::Unreadable),
            (2, ProblemCode::Unreadable),
            (3, ProblemCode::Unreadable),
            (4, ProblemCode::Unreadable),
            (5, ProblemCode::Unreadable),
            (6, ProblemCode::BadValue),
            (7, ProblemCode::Syntax),
            (8, ProblemCode::Syntax),
            (9, ProblemCode::Syntax),
            (10, ProblemCode::Syntax),
        ],
        "{problems:?}"
    );
    assert!(problems[0].2.contains("missing"), "{problems:?}");
}

#[test]
fn files_that_include_themselves_are_refused() {
    let directory = Directory::new(&[
        ("hba", "include one\nlocal @names all trust\n"),
        ("one", "include two\n"),
        ("two", "include one\n"),
        ("names", "a @names\n"),
    ]);
    let problems = directory.problems();
    assert!(
        problems
            .iter()
            .all(|(_, code, text)| *code == ProblemCode::Conflict
                && text.contains("includes itself")),
        "{problems:?}"
    );
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn files_may_name_each_other_ten_deep() {
    let chain = |length: usize| {
        let files: Vec<_> = (0..=length)
            .map(|number| {
                let name = if number == 0 {
                    "hba".to_owned()
                } else {
                    number.to_string()
                };
                let next = if number == length {
                    "local a all trust".to_owned()
                } else {
                    format!("include {}", number + 1)
                };
                (name, next)
            })
            .collect();
        let files: Vec<_> = files
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        Directory::new(&files)
    };
    assert_eq!(chain(10).databases(), [found("10", 1, &["a"])]);
    let problems = chain(11).problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].2.contains("more than 10"), "{problems:?}");
}

#[test]
fn a_missing_file_and_a_directory_are_unreadable() {
    let directory = Directory::new(&[("sub/x", "")]);
    assert_eq!(directory.problems()[0].1, ProblemCode::Unreadable);
    let problems = Rules::load(&directory.0.join("sub")).unwrap_err();
    assert_eq!(
        (problems.0[0].code, problems.0[0].line),
        (ProblemCode::Unreadable, None)
    );
    assert!(Maps::load(&directory.0.join("none")).is_err());
}

#[test]
fn maps_include_files_as_well() {
    let directory = Directory::new(&[("ident", "include more\nm b c"), ("more", "m a b\n")]);
    let maps = Maps::load(&directory.0.join("ident")).unwrap();
    assert!(maps.allows(Some("m"), "a", "b") && maps.allows(Some("m"), "b", "c"));
}
