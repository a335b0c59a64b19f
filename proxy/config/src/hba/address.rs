//! Addresses of clients that a rule is about.

use std::fmt;
use std::net::IpAddr;

/// Which addresses a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    /// Every address; with [`super::Connection::Local`] there is no other choice.
    All,
    /// The addresses of this machine.
    SameHost,
    /// The networks that this machine is in.
    SameNet,
    /// A network.
    Network(Network),
}

/// An address and the bits of it that matter. Both are of the same family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    mask: IpAddr,
}

impl Network {
    /// A network; `None` when the address and the mask are of different families.
    pub fn new(address: IpAddr, mask: IpAddr) -> Option<Self> {
        (address.is_ipv4() == mask.is_ipv4()).then_some(Self { address, mask })
    }

    /// A network with so many leading bits; `None` when the address has not that many.
    pub fn of_prefix(address: IpAddr, bits: u32) -> Option<Self> {
        let mask = match address {
            IpAddr::V4(_) if bits <= 32 => {
                let zeros = u32::MAX.checked_shr(bits).unwrap_or(0);
                IpAddr::V4((!zeros).into())
            }
            IpAddr::V6(_) if bits <= 128 => {
                let zeros = u128::MAX.checked_shr(bits).unwrap_or(0);
                IpAddr::V6((!zeros).into())
            }
            _ => return None,
        };
        Some(Self { address, mask })
    }

    /// The address as it was written, which may have more bits than the mask.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The bits that matter.
    pub fn mask(&self) -> IpAddr {
        self.mask
    }

    /// Whether an address is in the network. One of the other family never is.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, self.mask, address) {
            (IpAddr::V4(own), IpAddr::V4(mask), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()) & mask.to_bits() == 0
            }
            (IpAddr::V6(own), IpAddr::V6(mask), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()) & mask.to_bits() == 0
            }
            _ => false,
        }
    }

    fn is_only_itself(&self, address: IpAddr) -> bool {
        self.address == address
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.address, self.mask)
    }
}

impl Addresses {
    /// Whether an address is one of them; `interfaces` are the addresses and networks of this machine.
    pub(super) fn contain(&self, address: IpAddr, interfaces: &[Network]) -> bool {
        match self {
            Self::All => true,
            Self::SameHost => interfaces.iter().any(|own| own.is_only_itself(address)),
            Self::SameNet => interfaces.iter().any(|own| own.contains(address)),
            Self::Network(network) => network.contains(address),
        }
    }
}
