//! Who may enter a site's folder: its own user and the edge, nobody else.
//!
//! Mode bits know one group only, so this is a POSIX access control list, written as the kernel's attribute
//! (acl(5); layout in the kernel's `posix_acl_xattr.h`). Where the file system has none, the caller is told.

use std::io;
use std::path::Path;

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const NOBODY: u32 = u32::MAX;

const RWX: u16 = 7;
const RX: u16 = 5;

/// Lets root do everything, these users read and enter, and nobody else anything.
pub fn admit(folder: &Path, users: &[u32]) -> io::Result<()> {
    rustix::fs::setxattr(
        folder,
        "system.posix_acl_access",
        &attribute(users),
        rustix::fs::XattrFlags::empty(),
    )
    .map_err(io::Error::from)
}

/// Lets whoever gets there read what will be made in a folder, whatever its maker's umask says. For folders in a closed one.
pub fn share(folder: &Path) -> io::Result<()> {
    rustix::fs::setxattr(
        folder,
        "system.posix_acl_default",
        &entries([(USER_OBJ, RWX, NOBODY), (GROUP_OBJ, RX, NOBODY), (OTHER, RX, NOBODY)]),
        rustix::fs::XattrFlags::empty(),
    )
    .map_err(io::Error::from)
}

fn attribute(users: &[u32]) -> Vec<u8> {
    let mut users = users.to_vec();
    users.sort_unstable();
    users.dedup();
    let others = [(GROUP_OBJ, 0, NOBODY), (MASK, RX, NOBODY), (OTHER, 0, NOBODY)];
    let users = users.into_iter().map(|uid| (USER, RX, uid));
    entries([(USER_OBJ, RWX, NOBODY)].into_iter().chain(users).chain(others))
}

fn entries(all: impl IntoIterator<Item = (u16, u16, u32)>) -> Vec<u8> {
    let mut bytes = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, id) in all {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_accepts_and_shows_the_list() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        match admit(folder.path(), &[12345, 54321]) {
            Ok(()) => {
                let mut bytes = [0u8; 256];
                let n = rustix::fs::getxattr(folder.path(), "system.posix_acl_access", &mut bytes)
                    .expect("it was set");
                assert_eq!(bytes[..n], attribute(&[54321, 12345]));
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}"),
        }
    }
}
