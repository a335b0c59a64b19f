//! Notices changed files by looking at them: that sees an edit, a replaced file and the links that Kubernetes swaps alike,
//! on every kind of volume.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pgdog_config::api::Cause;
use pgdog_config::{Settings, Source};

use super::Reloader;

/// Time between two looks. A change counts when the next look sees no further one.
const INTERVAL: Duration = Duration::from_secs(1);

/// What tells one content of a file from another: device, inode, size, time of change (s, ns). `None`: no such file.
type Stamp = Option<(u64, u64, u64, i64, i64)>;
type Stamps = BTreeMap<PathBuf, Stamp>;

pub(super) async fn run(reloader: &Arc<Reloader>) {
    let mut settled: Option<Stamps> = None;
    let mut before = Stamps::new();
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        // The first one ends at once.
        interval.tick().await;
        let live = reloader.runtime.live();
        if !live.settings.watch {
            settled = None;
            continue;
        }
        let paths = paths(&reloader.source, &live.settings);
        drop(live);
        let Ok(now) = tokio::task::spawn_blocking(move || stamps(paths)).await else {
            return;
        };
        let quiet = now == before;
        before.clone_from(&now);
        match &settled {
            None => settled = Some(now),
            Some(seen) if quiet && changed(seen, &now) => {
                settled = Some(now);
                let reloader = Arc::clone(reloader);
                let reload = move || reloader.reload(Cause::Watch).is_ok();
                if tokio::task::spawn_blocking(reload).await.is_err() {
                    return;
                }
            }
            Some(_) => {}
        }
    }
}

/// Whether a file that was looked at before is another one now. Files that are new to the list were read just now.
fn changed(seen: &Stamps, now: &Stamps) -> bool {
    now.iter()
        .any(|(path, stamp)| seen.get(path).is_some_and(|before| before != stamp))
}

fn paths(source: &Source, settings: &Settings) -> Vec<PathBuf> {
    let mut paths = vec![source.config.clone(), source.users_file()];
    if let Some(tls) = &settings.client_tls {
        paths.extend([tls.certificate.clone(), tls.private_key.clone()]);
        paths.extend(tls.client_ca.clone());
    }
    for user in &settings.users {
        let tls = &user.pool.server_tls;
        paths.extend(
            [&tls.ca, &tls.certificate, &tls.private_key]
                .into_iter()
                .flatten()
                .cloned(),
        );
    }
    if let Some(http) = &settings.admin_http {
        paths.extend(
            http.tls
                .iter()
                .flat_map(|(certificate, key)| [certificate.clone(), key.clone()]),
        );
        paths.extend(http.client_ca.clone());
    }
    if let Some(hba) = &settings.hba {
        paths.push(hba.rules.clone());
        paths.extend(hba.maps.clone());
    }
    paths.sort_unstable();
    paths.dedup();
    paths
}

fn stamps(paths: Vec<PathBuf>) -> Stamps {
    let stamp = |path: &PathBuf| {
        // Follows links, so that another target is another file.
        let of = std::fs::metadata(path).ok()?;
        Some((of.dev(), of.ino(), of.size(), of.mtime(), of.mtime_nsec()))
    };
    paths
        .into_iter()
        .map(|path| {
            let stamp = stamp(&path);
            (path, stamp)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn an_edit_and_a_swapped_link_are_changes_and_a_new_name_is_none() {
        let dir = std::env::temp_dir().join(format!("pgdog-watch-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        for version in ["one", "two"] {
            std::fs::create_dir_all(dir.join(version)).unwrap();
            std::fs::write(dir.join(version).join("file"), version).unwrap();
        }
        symlink("one", dir.join("..data")).unwrap();
        symlink("..data/file", dir.join("file")).unwrap();
        let look = || stamps(vec![dir.join("file"), dir.join("none")]);
        let first = look();
        assert!(!changed(&first, &look()));
        symlink("two", dir.join("..new")).unwrap();
        std::fs::rename(dir.join("..new"), dir.join("..data")).unwrap();
        let second = look();
        assert!(changed(&first, &second));
        std::fs::write(dir.join("two").join("file"), "another length").unwrap();
        let third = look();
        assert!(changed(&second, &third));
        std::fs::write(dir.join("none"), "").unwrap();
        assert!(changed(&third, &look()), "a file that was missing");
        assert!(
            !changed(&Stamps::new(), &look()),
            "names that are new to the list"
        );
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
