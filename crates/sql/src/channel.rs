//! Which socket stands for which engine, and what its protocol is called between nodes.

use serde::{Deserialize, Serialize};

/// An engine's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    /// MariaDB, for everything.
    Writer,
    /// MariaDB, for reads that may be a little old.
    Reader,
    /// Redis: the object cache.
    Cache,
    /// Redis: sessions.
    Sessions,
}

impl Channel {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Writer, Self::Reader, Self::Cache, Self::Sessions];

    /// Name of its listening socket at the keeper.
    pub fn listener(self) -> &'static str {
        match self {
            Self::Writer => "sql-writer",
            Self::Reader => "sql-reader",
            Self::Cache => "sql-cache",
            Self::Sessions => "sql-sessions",
        }
    }

    /// The one of a listening socket.
    pub fn of_listener(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| channel.listener() == name)
    }

    /// How it is called in the handshake between nodes (ALPN).
    pub fn protocol(self) -> &'static [u8] {
        match self {
            Self::Writer => b"pressroom-writer",
            Self::Reader => b"pressroom-reader",
            Self::Cache => b"pressroom-cache",
            Self::Sessions => b"pressroom-sessions",
        }
    }

    /// The one of a protocol.
    pub fn of_protocol(protocol: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| channel.protocol() == protocol)
    }

    /// What a client is told that cannot be served, in its own protocol, before it is hung up on.
    pub(crate) fn apology(self) -> Vec<u8> {
        match self {
            Self::Writer | Self::Reader => {
                // An error packet in the place of the greeting: length, number 0, 0xff, code 1053 (server shutdown), text.
                let text = b"the database's node does not answer at the moment";
                let length = (3 + text.len()) as u8;
                [&[length, 0, 0, 0, 0xff, 0x1d, 0x04][..], text].concat()
            }
            // A server that is starting says the same, and clients know it.
            Self::Cache | Self::Sessions => {
                b"-LOADING the node of this Redis does not answer at the moment\r\n".to_vec()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_is_found_by_its_names_and_apologises_in_its_protocol() {
        for channel in Channel::ALL {
            assert_eq!(Channel::of_listener(channel.listener()), Some(channel));
            assert_eq!(Channel::of_protocol(channel.protocol()), Some(channel));
        }
        let packet = Channel::Writer.apology();
        assert_eq!(usize::from(packet[0]) + 4, packet.len());
        assert_eq!(u16::from_le_bytes([packet[5], packet[6]]), 1053);
    }
}
