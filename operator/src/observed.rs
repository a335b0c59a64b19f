//! What the proxies have found out about Postgres: labels are a hint, and they are the judge. Pure.

use pgdog_config::Role;
use pgdog_config::api::{HostRole, HostStatus};
use pgdog_operator_api::PrimaryStatus;

use crate::discover::{Found, Host, Trouble};
use crate::fleet::Report;
use crate::world::with_port;

/// So many proxies of a cluster are asked: they all see the same, but for moments and cut wires.
pub const OBSERVERS: usize = 3;

/// What is known of the hosts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// The hosts that writes go to.
    pub primaries: Vec<PrimaryStatus>,
    /// How many take reads only.
    pub replicas: usize,
    /// What is wrong, shard by shard.
    pub troubles: Vec<Trouble>,
    /// Hosts that cannot be used though their shard has a primary, and why.
    pub down: Vec<String>,
}

/// What the first proxies say of these hosts; nothing where none has said anything yet.
#[must_use]
pub fn view(found: &Found, reports: &[Report]) -> Option<View> {
    // Others have what they knew when they were asked.
    let reports = &reports[..reports.len().min(OBSERVERS)];
    let mut shards: Vec<u16> = found.hosts.iter().map(|host| host.shard).collect();
    shards.dedup();
    let mut view = View::default();
    let mut told = false;
    for shard in shards {
        let hosts = found.hosts.iter().filter(|host| host.shard == shard);
        let hosts: Vec<_> = hosts
            .filter_map(|host| Some((host, seen(host, reports)?)))
            .collect();
        if hosts.is_empty() {
            hint(
                found.hosts.iter().filter(|host| host.shard == shard),
                &mut view,
            );
        } else {
            told = true;
            judge(shard, &hosts, &mut view);
        }
    }
    told.then_some(view)
}

/// What labels say, before a proxy has looked.
#[must_use]
pub fn hinted(found: &Found) -> View {
    let mut view = View::default();
    hint(found.hosts.iter(), &mut view);
    view
}

/// Of hosts that no proxy has asked there are only labels.
fn hint<'a>(hosts: impl Iterator<Item = &'a Host>, view: &mut View) {
    for host in hosts {
        match host.hint {
            Role::Primary => view.primaries.push(primary(host)),
            Role::Replica => view.replicas += 1,
            Role::Auto => {}
        }
    }
}

fn primary(host: &Host) -> PrimaryStatus {
    PrimaryStatus {
        shard: i32::from(host.shard),
        name: host.name.clone(),
        address: name(host),
    }
}

/// What most proxies say of a host, as far as one says anything.
fn seen(host: &Host, reports: &[Report]) -> Option<HostStatus> {
    let key = name(host);
    let all: Vec<_> = reports.iter().filter_map(|r| r.hosts.get(&key)).collect();
    let votes = |one: &HostStatus| {
        let same = |other: &&&HostStatus| (other.up, other.role) == (one.up, one.role);
        all.iter().filter(same).count()
    };
    // The first of those with most votes: who is asked first stays so.
    let best = all.iter().rev().max_by_key(|one| votes(one))?;
    Some((*best).clone())
}

/// As proxies name it.
fn name(host: &Host) -> String {
    with_port(&host.address, host.port)
}

fn judge(shard: u16, hosts: &[(&Host, HostStatus)], view: &mut View) {
    let of = |role: HostRole| {
        let of = hosts
            .iter()
            .filter(move |(_, seen)| seen.up && seen.role == role);
        of.map(|(host, _)| *host)
    };
    let down = || {
        let down = hosts.iter().filter(|(_, seen)| !seen.up);
        down.map(|(host, seen)| {
            let why = seen.trouble.as_deref().unwrap_or("it does not answer");
            format!("{}: {why}", host.name)
        })
    };
    view.replicas += of(HostRole::Replica).count();
    let primaries: Vec<_> = of(HostRole::Primary).collect();
    view.primaries
        .extend(primaries.iter().map(|host| PrimaryStatus {
            shard: i32::from(host.shard),
            name: host.name.clone(),
            address: name(host),
        }));
    let rivals: Vec<_> = of(HostRole::Split).map(|host| host.name.as_str()).collect();
    if !rivals.is_empty() {
        let names: Vec<_> = primaries.iter().map(|host| host.name.as_str()).collect();
        let all = [names.as_slice(), &rivals].concat().join(", ");
        let writes = match names.as_slice() {
            [] => "nobody can tell which is later, and writes are refused".to_owned(),
            names => format!("writes go to {}", names.join(", ")),
        };
        let message = format!("shard {shard}: {all} take writes; {writes}");
        view.troubles.push(Trouble::SplitBrain(message));
    } else if primaries.is_empty() {
        let why: Vec<_> = down().collect();
        let why = match why.as_slice() {
            [] => String::new(),
            why => format!("; {}", why.join("; ")),
        };
        let message = format!(
            "shard {shard}: none of {} hosts takes writes{why}",
            hosts.len()
        );
        view.troubles.push(Trouble::NoPrimary(message));
    } else {
        view.down.extend(down());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(hosts: &[(&str, u16)]) -> Found {
        let host = |(name, shard): &(&str, u16)| Host {
            shard: *shard,
            name: (*name).to_owned(),
            address: format!("{name}.example"),
            port: 5432,
            hint: Role::Auto,
            zone: None,
            weight: 255,
        };
        Found {
            hosts: hosts.iter().map(host).collect(),
            ..Found::default()
        }
    }

    fn report(hosts: &[(&str, HostRole, bool)]) -> Report {
        let host = |(name, role, up): &(&str, HostRole, bool)| {
            let status = HostStatus {
                role: *role,
                up: *up,
                trouble: (!up).then(|| "refused".to_owned()),
            };
            (format!("{name}.example:5432"), status)
        };
        Report {
            hosts: hosts.iter().map(host).collect(),
            ..Report::default()
        }
    }

    #[test]
    fn who_takes_writes_is_what_most_proxies_say() {
        use HostRole::{Primary, Replica};
        let of = found(&[("a", 0), ("b", 0), ("c", 1)]);
        assert_eq!(view(&of, &[Report::default()]), None, "nobody has looked");
        let first = report(&[
            ("a", Primary, true),
            ("b", Replica, true),
            ("c", Primary, true),
        ]);
        let cut = report(&[
            ("a", Primary, false),
            ("b", Primary, true),
            ("c", Primary, true),
        ]);
        let seen = view(&of, &[cut.clone(), first.clone(), first.clone()]).unwrap();
        let primaries: Vec<_> = seen.primaries.iter().map(|one| one.name.as_str()).collect();
        assert_eq!((primaries, seen.replicas), (vec!["a", "c"], 1));
        assert!(seen.troubles.is_empty() && seen.down.is_empty());
        // Those that are not asked any more have what they knew then.
        let asked = [cut.clone(), Report::default(), Report::default()];
        let former = vec![first; 4];
        let seen = view(&of, &[&asked[..], &former].concat()).unwrap();
        assert_eq!(seen.primaries[0].name, "b");
        let seen = view(&of, std::slice::from_ref(&cut)).unwrap();
        assert_eq!(seen.primaries[0].address, "b.example:5432");
        assert_eq!(seen.down, ["a: refused"]);
        // Of a shard that nobody has asked there is what labels say.
        let mut more = found(&[("a", 0), ("b", 0), ("c", 1), ("d", 2)]);
        more.hosts[3].hint = Role::Primary;
        let seen = view(&more, &[cut]).unwrap();
        let shards: Vec<_> = seen.primaries.iter().map(|one| one.shard).collect();
        assert_eq!(shards, [0, 1, 2]);
    }

    #[test]
    fn nobody_who_takes_writes_and_two_who_do_are_told() {
        use HostRole::{Primary, Split, Unknown};
        let of = found(&[("a", 0), ("b", 0)]);
        let told = |hosts: &[(&str, HostRole, bool)]| view(&of, &[report(hosts)]).unwrap().troubles;
        // The only host of a database counts as its primary, also when nobody reaches it.
        assert_eq!(
            told(&[("a", Primary, false), ("b", Unknown, false)]),
            [Trouble::NoPrimary(
                "shard 0: none of 2 hosts takes writes; a: refused; b: refused".to_owned()
            )]
        );
        assert_eq!(
            told(&[("a", Split, true), ("b", Split, true)]),
            [Trouble::SplitBrain(
                "shard 0: a, b take writes; nobody can tell which is later, and writes are refused"
                    .to_owned()
            )]
        );
        assert_eq!(
            told(&[("a", Split, true), ("b", Primary, true)]),
            [Trouble::SplitBrain(
                "shard 0: b, a take writes; writes go to b".to_owned()
            )]
        );
    }
}
