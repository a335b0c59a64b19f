//! What only the operating system knows: the addresses of this machine, and who its users are.

use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use nix::unistd::{Uid, User};

/// The addresses of this machine, each with the mask of its network.
///
/// # Errors
/// What the system said.
pub fn interfaces() -> io::Result<Vec<(IpAddr, IpAddr)>> {
    let all = getifaddrs()?;
    Ok(all
        .filter_map(|interface| ip(interface.address).zip(ip(interface.netmask)))
        .collect())
}

/// The name of a user of this machine. Blocks: the system may ask a directory service.
///
/// # Errors
/// What the system said.
pub fn user_name(id: u32) -> io::Result<Option<String>> {
    Ok(User::from_uid(Uid::from_raw(id))?.map(|user| user.name))
}

fn ip(address: Option<SockaddrStorage>) -> Option<IpAddr> {
    let address = address?;
    let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_loopback_with_its_network() {
        let loopback = ("127.0.0.1".parse().unwrap(), "255.0.0.0".parse().unwrap());
        assert!(interfaces().unwrap().contains(&loopback));
    }

    #[test]
    fn users_have_names() {
        assert_eq!(user_name(0).unwrap().as_deref(), Some("root"));
        assert_eq!(user_name(3_999_999_999).unwrap(), None);
    }
}
