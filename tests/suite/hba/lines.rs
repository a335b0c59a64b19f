//! Lines that are right, and lines that are wrong in one place or another.

use std::env;

use crate::dice::Dice;

/// Lines that went wrong once, or that might.
const HBA: &[&str] = &[
    "",
    "# nothing",
    "   # nothing",
    ",",
    "local",
    "local all",
    "local all all",
    "local all all trust # why",
    "local all all trust#why",
    "local all all \"tru\"st",
    "\"local\" all all \"trust\"",
    "local a, b all trust",
    "local a ,b all trust",
    "local a,,b all trust",
    "local a, # b",
    "local \"a b\",c\"d e\"f \"x\"\"y\" trust",
    "local \"\" \"\" trust",
    "local \"all all trust",
    "local all,\"all\",sameuser,\"replication\" \"all\" trust",
    "local all all ident",
    "local all all peer map=x",
    "local all all peer map=",
    "local all all peer map",
    "local all all peer map=a=b \"map=c d\"",
    "local all all md5 map=x",
    "local all all cert",
    "host all all all cert",
    "hostssl all all all cert",
    "hostssl all all all cert map=x clientcert=verify-full clientname=DN",
    "hostssl all all all cert clientcert=verify-ca",
    "hostssl all all all md5 clientcert=verify-ca,clientname=CN",
    "hostssl all all all md5 clientcert=1",
    "hostssl all all all md5 clientname=x",
    "host all all all md5 clientcert=verify-ca",
    "host all all all md5 clientname=CN",
    "host all all all md5 pamservice=x",
    "host all all all md5 what=ever",
    "host all all 10.1.2.3/8 md5",
    "host all all 10.0.0.0/08 md5",
    "host all all 10.0.0.0/33 md5",
    "host all all 10.0.0.0/-1 md5",
    "host all all 10.0.0.0/ md5",
    "host all all 10.0.0.0/8/8 md5",
    "host all all 10.0.0.0/8 255.0.0.0 md5",
    "host all all 10.0.0.0 255.0.255.0 md5",
    "host all all 10.0.0.0 ffff:: md5",
    "host all all :: 255.0.0.0 md5",
    "host all all 10.0.0.0 md5",
    "host all all 10.0.0.0,11.0.0.0/8 md5",
    "host all all 10.0.0.0 255.0.0.0,255.0.0.0 md5",
    "host all all ::/129 md5",
    "host all all ::1/128 md5",
    "host all all ::ffff:10.0.0.0/104 md5",
    "host all all fe80::1 ffff:ffff:: md5",
    "host all all \"::1/128\" md5",
    "host all all name/8 md5",
    "host all all \"all\" md5",
    "host all all db.example.com md5",
    "host all all .example.com md5",
    "host all,samerole +g,u samenet md5",
    "host all \"+g\" samehost md5",
    "Host all all all md5",
    "host all all all MD5",
    "include",
    "include a b c",
];

const CONNECTIONS: &[&str] = &[
    "local",
    "local",
    "host",
    "host",
    "hostssl",
    "hostssl",
    "hostnossl",
    "hostgssenc",
    "hostnogssenc",
];
const NAMES: &[&str] = &[
    "all",
    "\"all\"",
    "sameuser",
    "replication",
    "app",
    "app_ro",
    "\"two words\"",
    "x\"y z\"",
    "\"a,b\"",
    "\"say \"\"hi\"\"\"",
    "/^db[0-9]+$",
    "\"/^(a|b),c$\"",
    "@",
    "\"@file\"",
    "\"#x\"",
    "+",
    "samerole",
    "+g",
    "é",
];
const ADDRESSES: &[&str] = &[
    "all",
    "samehost",
    "samenet",
    "127.0.0.1/32",
    "10.0.0.0/8",
    "192.168.7.0/24",
    "0.0.0.0/0",
    "::1/128",
    "::/0",
    "2001:db8::/33",
    "10.0.0.0 255.0.0.0",
    "10.0.0.0\t255.255.255.255",
    "fe80:: ffc0::",
    "10.0.0.0",
    "10.0.0.256/8",
    "db.example.com",
    "::/200",
];
const METHODS: &[&str] = &[
    "trust",
    "reject",
    "md5",
    "password",
    "scram-sha-256",
    "scram-sha-256",
    "\"md5\"",
    "cert",
    "peer",
    "ident",
    "pam",
    "ldap",
    "nothing",
];
const OPTIONS: &[&str] = &[
    "map=m",
    "\"map=two words\"",
    "clientcert=verify-ca",
    "clientcert=verify-full",
    "clientname=CN",
    "clientname=DN",
    "clientcert=no-verify",
    "option",
    "radiusservers=x",
];

const IDENT: &[&str] = &[
    "",
    "# nothing",
    "m",
    "m a",
    "m a b",
    "m a,b c",
    "m,n a b",
    "m a b,c",
    "\"two words\" \"a b\" \"c,d\"",
    "m /^(.*)@example\\.com$ \\1",
    "m /^(.*)@example\\.com$ x\\1y",
    "m /( a",
    "m /a** a",
    "m /[[:nothing:]] a",
    "m \"/^(a,b)$\" \\1",
    "m a \"all\"",
    "m a \"+g\"",
    "m \"\" \"\"",
];
const SYSTEM: &[&str] = &[
    "joe",
    "\"joe smith\"",
    "joe@EXAMPLE.COM",
    "/^(.*)@example\\.com$",
    "/^joe",
    "/[",
    "/x{2,1}",
    "/x{2,3}",
    "/^[a-z]+$",
    "/(a",
    "/a)",
    "/[a-",
    "/*",
    "/\\d+",
    "/^^",
    "CN=joe,O=x",
];
const USERS: &[&str] = &[
    "joe",
    "all",
    "\"all\"",
    "\\1",
    "a\\1b",
    "\"two words\"",
    "x,y",
];

/// The seed that `HBA_SEED` names, for trying others than the one that every run tries.
pub(super) fn seed() -> u64 {
    env::var("HBA_SEED").map_or(1, |seed| seed.parse().expect("HBA_SEED is a number"))
}

fn pick(dice: &mut Dice, from: &[&str]) -> String {
    from[dice.below(from.len() as u64) as usize].to_owned()
}

fn list(dice: &mut Dice, from: &[&str]) -> String {
    let mut list = pick(dice, from);
    while dice.one_in(3) {
        list.push_str(if dice.one_in(4) { ", " } else { "," });
        list.push_str(&pick(dice, from));
    }
    list
}

/// Leaves a field out, or joins it to the next.
fn spoil(dice: &mut Dice, fields: &mut Vec<String>) {
    let at = dice.below(fields.len() as u64) as usize;
    if dice.one_in(2) {
        fields.remove(at);
    } else {
        fields[at].push(',');
    }
}

fn joined(dice: &mut Dice, fields: &[String]) -> String {
    let blank = |dice: &mut Dice| if dice.one_in(5) { " \t " } else { " " };
    let mut line = String::new();
    if dice.one_in(8) {
        line.push_str(blank(dice));
    }
    for field in fields {
        line.push_str(field);
        line.push_str(blank(dice));
    }
    if dice.one_in(8) {
        line.push_str("# \"why");
    }
    line
}

/// The lines of a `pg_hba.conf`.
pub(super) fn hba(seed: u64) -> Vec<String> {
    let mut dice = Dice::new(seed, 0);
    let mut lines: Vec<String> = HBA.iter().map(|line| (*line).to_owned()).collect();
    while lines.len() < 500 {
        let connection = pick(&mut dice, CONNECTIONS);
        let mut fields = vec![
            connection.clone(),
            list(&mut dice, NAMES),
            list(&mut dice, NAMES),
        ];
        if connection != "local" {
            fields.push(pick(&mut dice, ADDRESSES));
        }
        let method = pick(&mut dice, METHODS);
        fields.push(method);
        while dice.one_in(4) {
            fields.push(pick(&mut dice, OPTIONS));
        }
        if dice.one_in(12) {
            let at = dice.below(fields.len() as u64) as usize;
            fields.insert(at, fields[at].clone());
        }
        if dice.one_in(12) {
            spoil(&mut dice, &mut fields);
        }
        lines.push(joined(&mut dice, &fields));
    }
    lines
}

/// The lines of a `pg_ident.conf`.
pub(super) fn ident(seed: u64) -> Vec<String> {
    let mut dice = Dice::new(seed, 1);
    let mut lines: Vec<String> = IDENT.iter().map(|line| (*line).to_owned()).collect();
    while lines.len() < 200 {
        let mut fields = vec![
            pick(&mut dice, &["m", "other", "\"two words\""]),
            pick(&mut dice, SYSTEM),
            pick(&mut dice, USERS),
        ];
        if dice.one_in(8) {
            spoil(&mut dice, &mut fields);
        }
        lines.push(joined(&mut dice, &fields));
    }
    lines
}

/// The same lines with breaks in some of them and comments between.
pub(super) fn continued(seed: u64, lines: &[String]) -> String {
    let mut dice = Dice::new(seed, 2);
    let mut text = String::new();
    for line in lines {
        for c in line.chars() {
            if dice.one_in(20) {
                text.push_str(if dice.one_in(4) { "\\\r\n" } else { "\\\n" });
            }
            text.push(c);
        }
        text.push_str(if dice.one_in(4) { "\r\n" } else { "\n" });
        if dice.one_in(6) {
            text.push_str("# a comment\n\n");
        }
    }
    text
}
