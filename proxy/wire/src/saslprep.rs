//! SASLprep (RFC 4013) of passwords, the way Postgres does it.
//!
//! A password has to become the same bytes here and in Postgres, or logins fail. Postgres strays from the RFC in two
//! ways. It looks for forbidden characters before the normalization, not after: U+0340 is forbidden although it
//! normalizes to something harmless. And a password that cannot be prepared is not an error but taken as it is.

use std::borrow::Cow;

use stringprep::tables;
use unicode_normalization::UnicodeNormalization;

/// Prepares a password; gives it back as it is when it cannot be prepared.
#[must_use]
pub fn prepare(password: &str) -> Cow<'_, str> {
    // Postgres leaves ASCII alone, even the control characters that the RFC forbids.
    if password.is_ascii() {
        return Cow::Borrowed(password);
    }
    let mapped: String = password
        .chars()
        // First: U+200B is in both tables and becomes a space.
        .map(|c| {
            if tables::non_ascii_space_character(c) {
                ' '
            } else {
                c
            }
        })
        .filter(|c| !tables::commonly_mapped_to_nothing(*c))
        .collect();
    // Nobody's password becomes empty by this.
    if mapped.is_empty() || mapped.chars().any(is_prohibited) || mixes_directions(&mapped) {
        return Cow::Borrowed(password);
    }
    Cow::Owned(mapped.nfkc().collect())
}

/// RFC 4013 sections 2.3 and 2.5.
fn is_prohibited(c: char) -> bool {
    tables::ascii_control_character(c)
        || tables::non_ascii_control_character(c)
        || tables::private_use(c)
        || tables::non_character_code_point(c)
        || tables::inappropriate_for_plain_text(c)
        || tables::inappropriate_for_canonical_representation(c)
        || tables::change_display_properties_or_deprecated(c)
        || tables::tagging_character(c)
        || tables::unassigned_code_point(c)
}

/// RFC 3454 section 6: text written from right to left begins and ends so, and has nothing else in it.
fn mixes_directions(text: &str) -> bool {
    text.contains(tables::bidi_r_or_al)
        && (text.contains(tables::bidi_l)
            || !text.starts_with(tables::bidi_r_or_al)
            || !text.ends_with(tables::bidi_r_or_al))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_stays_as_it_is() {
        for password in ["", "pencil", "with space", "tab\tand\x7f"] {
            assert!(matches!(prepare(password), Cow::Borrowed(same) if same == password));
        }
    }

    #[test]
    fn examples_of_the_rfc() {
        assert_eq!(prepare("I\u{ad}X"), "IX");
        assert_eq!(prepare("\u{aa}"), "a");
        assert_eq!(prepare("\u{2168}"), "IX");
        assert_eq!(prepare("a\u{a0}b\u{1680}c\u{200b}d"), "a b c d");
        assert_eq!(prepare("u\u{308}"), "\u{fc}");
    }

    #[test]
    fn what_cannot_be_prepared_stays_as_it_is() {
        for password in [
            "\u{ad}",                 // nothing left
            "\u{e4}\t",               // a control character
            "\u{627}1",               // right to left does not end so
            "\u{5d0}a\u{5d0}",        // both directions
            "a\u{aa}\u{221}",         // not in Unicode 3.2
            "\u{aa}\u{e000}",         // private use
            "\u{aa}\u{fffd}\u{2ff0}", // not for text
        ] {
            assert!(
                matches!(prepare(password), Cow::Borrowed(same) if same == password),
                "{password:?}"
            );
        }
    }

    #[test]
    fn forbidden_characters_count_before_normalization_as_in_postgres() {
        // The RFC would give "x\u{300}y" and "0,": stored by PostgreSQL 15 as they are.
        assert_eq!(prepare("x\u{340}y"), "x\u{340}y");
        assert_eq!(prepare("\u{1f101}"), "\u{1f101}");
    }
}
