//! Passwords that were replaced a short while ago are accepted for a while longer, so that applications can be restarted one
//! after the other. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use pgdog_operator_api::UserSpec;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::render::users::Former;

/// How long, where nothing is said.
const OVERLAP: Duration = Duration::from_secs(600);

/// A password that was replaced.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// Whose it was: the [`key`] of an entry.
    pub user: String,
    /// What it was.
    pub password: String,
    /// Until when it is accepted.
    pub until: Timestamp,
}

impl std::fmt::Debug for Replaced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replaced({:?} until {})", self.user, self.until)
    }
}

/// Those that are still accepted, with those that `after` replaced: the settings before and after a change of a Secret.
#[must_use]
pub fn replaced(
    known: &[Replaced],
    before: Option<&Map<String, Value>>,
    after: &Map<String, Value>,
    users: &[UserSpec],
    now: Timestamp,
) -> Vec<Replaced> {
    let mut all: Vec<Replaced> = known.iter().filter(|r| r.until > now).cloned().collect();
    let order: Vec<_> = entries(after).map(key).collect();
    let (before, after) = (before.map(passwords).unwrap_or_default(), passwords(after));
    for (user, password) in before {
        // A user who was taken out has no password that is accepted.
        let Some(new) = after.get(&user) else {
            continue;
        };
        if *new == password {
            continue;
        }
        // Entries stand in the order of the spec; the name may stand in the Secret only.
        let overlap = order
            .iter()
            .position(|key| *key == user)
            .and_then(|index| users.get(index))
            .and_then(|spec| spec.rotation_overlap)
            .map_or(OVERLAP, Duration::from);
        if overlap.is_zero() {
            continue;
        }
        all.retain(|r| r.user != user || r.password != password);
        all.push(Replaced {
            user,
            password,
            until: now + overlap,
        });
    }
    all.retain(|r| {
        after
            .get(&r.user)
            .is_some_and(|present| *present != r.password)
    });
    all
}

/// What is accepted besides the present passwords.
#[must_use]
pub fn former(replaced: &[Replaced]) -> Former {
    let mut former = Former::new();
    for one in replaced {
        former
            .entry(one.user.clone())
            .or_default()
            .push(one.password.clone());
    }
    former
}

/// The keys of a user that come from Secrets.
const OF_SECRETS: &[&str] = &[
    "password",
    "passwords",
    "password_hash",
    "server_user",
    "server_password",
];

/// These settings without what comes from Secrets: another password does not make others of them.
#[must_use]
pub fn without_secrets(settings: &Map<String, Value>) -> Map<String, Value> {
    let mut settings = settings.clone();
    let users = settings.get_mut("users").and_then(Value::as_array_mut);
    for user in users.into_iter().flatten().filter_map(Value::as_object_mut) {
        user.retain(|key, _| !OF_SECRETS.contains(&key.as_str()));
    }
    settings
}

/// Settings of before, of which no former passwords are accepted but these.
#[must_use]
pub fn with_former(settings: &Map<String, Value>, former: &Former) -> Map<String, Value> {
    let mut settings = settings.clone();
    let users = settings.get_mut("users").and_then(Value::as_array_mut);
    for user in users.into_iter().flatten().filter_map(Value::as_object_mut) {
        let present = user.get("password").and_then(Value::as_str);
        let still = former.get(&key(user)).into_iter().flatten();
        let still: Vec<_> = still
            .filter(|one| Some(one.as_str()) != present)
            .cloned()
            .collect();
        if still.is_empty() {
            user.remove("passwords");
        } else {
            user.insert("passwords".to_owned(), still.into());
        }
    }
    settings
}

/// Settings of before with what Secrets hold now: a password is replaced also while other settings are held back.
#[must_use]
pub fn renewed(settings: &Map<String, Value>, latest: &Map<String, Value>) -> Map<String, Value> {
    let mut settings = settings.clone();
    let users = settings.get_mut("users").and_then(Value::as_array_mut);
    for user in users.into_iter().flatten().filter_map(Value::as_object_mut) {
        let same = entries(latest)
            .find(|one| key(one) == key(user))
            .or_else(|| {
                // Another list of databases may be among what is held back.
                let mut named = entries(latest).filter(|one| one.get("name") == user.get("name"));
                named.next().filter(|_| named.next().is_none())
            });
        let Some(same) = same else { continue };
        for key in OF_SECRETS {
            match same.get(*key) {
                Some(value) => user.insert((*key).to_owned(), value.clone()),
                None => user.remove(*key),
            };
        }
    }
    settings
}

/// By what an entry of `[[users]]` is known: one name may have several, each of other databases.
#[must_use]
pub fn key(user: &Map<String, Value>) -> String {
    let name = user.get("name").and_then(Value::as_str).unwrap_or_default();
    let databases = user.get("databases").and_then(Value::as_array);
    let databases = databases.into_iter().flatten().filter_map(Value::as_str);
    // No name of a database begins another one by this.
    databases.fold(name.to_owned(), |key, database| {
        format!("{key}\0{database}")
    })
}

fn entries(settings: &Map<String, Value>) -> impl Iterator<Item = &Map<String, Value>> {
    let users = settings.get("users").and_then(Value::as_array);
    users.into_iter().flatten().filter_map(Value::as_object)
}

/// The password of each entry.
fn passwords(settings: &Map<String, Value>) -> BTreeMap<String, String> {
    entries(settings)
        .filter_map(|user| Some((key(user), user.get("password")?.as_str()?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(password: &str) -> Map<String, Value> {
        let settings = json!({"users": [{"name": "app", "password": password}]});
        settings.as_object().unwrap().clone()
    }

    #[test]
    fn the_former_password_is_accepted_until_its_time_is_over() {
        let now = Timestamp::now();
        let one = replaced(&[], Some(&settings("a")), &settings("b"), &[], now);
        assert_eq!(former(&one)["app"], ["a"]);
        let later = replaced(
            &one,
            Some(&settings("b")),
            &settings("b"),
            &[],
            now + OVERLAP / 2,
        );
        assert_eq!(later, one);
        assert!(replaced(&one, None, &settings("b"), &[], now + OVERLAP).is_empty());
    }

    #[test]
    fn a_password_that_comes_back_is_not_a_former_one() {
        let now = Timestamp::now();
        let one = replaced(&[], Some(&settings("a")), &settings("b"), &[], now);
        let back = replaced(&one, Some(&settings("b")), &settings("a"), &[], now);
        assert_eq!(former(&back)["app"], ["b"]);
    }

    #[test]
    fn good_settings_get_the_passwords_of_now_and_nothing_else() {
        let mut good = settings("a");
        good.insert("general".to_owned(), json!({"default_pool_size": 10}));
        let mut latest = settings("b");
        latest["users"][0]["passwords"] = json!(["a"]);
        latest["users"][0]["pool_size"] = json!(3);
        latest["users"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "other", "password": "c"}));
        let renewed = renewed(&good, &latest);
        assert_eq!(
            Value::Object(renewed.clone()),
            json!({
                "general": {"default_pool_size": 10},
                "users": [{"name": "app", "password": "b", "passwords": ["a"]}],
            })
        );
        assert_eq!(without_secrets(&renewed), without_secrets(&good));
    }

    #[test]
    fn entries_of_one_name_have_passwords_of_their_own() {
        let both = |first: &str, second: &str| -> Map<String, Value> {
            let users = json!({"users": [
                {"name": "app", "databases": ["shop"], "password": first},
                {"name": "app", "databases": ["log"], "password": second},
            ]});
            users.as_object().unwrap().clone()
        };
        let now = Timestamp::now();
        let one = replaced(&[], Some(&both("a", "b")), &both("new", "b"), &[], now);
        let former = former(&one);
        assert_eq!(former["app\0shop"], ["a"]);
        assert_eq!(former.len(), 1, "the other entry's was not replaced");
        let after = with_former(&both("new", "b"), &former);
        assert_eq!(after["users"][0]["passwords"], json!(["a"]));
        assert_eq!(after["users"][1].get("passwords"), None);
        assert_eq!(
            renewed(&both("a", "b"), &both("c", "d")),
            both("c", "d"),
            "each its own"
        );
        // Another list of databases is held back, the password is not.
        let mut other = both("c", "d");
        other["users"].as_array_mut().unwrap().truncate(1);
        other["users"][0]["databases"] = json!(["shop", "more"]);
        let kept = renewed(&both("a", "b"), &other);
        assert_eq!(kept["users"][0]["password"], "c");
        assert_eq!(kept["users"][0]["databases"], json!(["shop"]));
    }

    #[test]
    fn who_was_taken_out_has_no_password() {
        let now = Timestamp::now();
        let one = replaced(&[], Some(&settings("a")), &settings("b"), &[], now);
        assert!(replaced(&one, Some(&settings("b")), &Map::new(), &[], now).is_empty());
    }
}
