//! Shows where two transcripts part.

use std::fmt::Write as _;

use super::conversation::Answer;
use super::script::Script;

const WIDTH: usize = 78;

/// The differing steps side by side, or none when the transcripts are equal.
pub(super) fn difference(script: &Script, postgres: &[Answer], other: &[Answer]) -> Option<String> {
    let mut out = String::new();
    let mut differs = false;
    for (index, step) in script.steps.iter().enumerate() {
        let left = masked(script, postgres.get(index));
        let right = masked(script, other.get(index));
        if left == right {
            writeln!(out, "    {}", step.text).ok()?;
            continue;
        }
        differs = true;
        writeln!(out, "  ≠ {}", step.text).ok()?;
        for row in 0..left.len().max(right.len()) {
            let (left, right) = (left.get(row), right.get(row));
            let mark = if left == right { ' ' } else { '|' };
            let cell = |line: Option<&String>| cut(line.map_or("", String::as_str));
            writeln!(out, "        {:WIDTH$} {mark} {}", cell(left), cell(right)).ok()?;
        }
        if other.len() <= index + 1 && other.len() < postgres.len() {
            writeln!(out, "        (given up here)").ok()?;
            break;
        }
    }
    differs.then_some(out)
}

/// The whole conversation, for people who write scripts.
pub(super) fn transcript(script: &Script, answers: &[Answer]) -> String {
    let mut out = format!("# name: {}\n", script.name);
    for (step, answer) in script.steps.iter().zip(answers) {
        out.push_str(&format!("{}\n", step.text));
        answer
            .lines
            .iter()
            .for_each(|line| out.push_str(&format!("        {line}\n")));
    }
    out
}

fn masked(script: &Script, answer: Option<&Answer>) -> Vec<String> {
    let lines = answer
        .map(|answer| answer.lines.as_slice())
        .unwrap_or_default();
    let is_masked = |line: &String| script.masks.iter().any(|mask| line.contains(mask.as_str()));
    lines
        .iter()
        .filter(|line| !is_masked(line))
        .cloned()
        .collect()
}

fn cut(line: &str) -> String {
    if line.chars().count() <= WIDTH {
        line.to_owned()
    } else {
        line.chars().take(WIDTH - 1).chain(['…']).collect()
    }
}
