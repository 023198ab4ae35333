//! What this machine says of itself: its boot, the mount of a directory, random names.

use rustix::fs::{AtFlags, StatxFlags};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// `STATX_MNT_ID_UNIQUE` (Linux 6.8): a mount id that is never used twice. Older kernels ignore it.
const MNT_ID_UNIQUE: u32 = 0x4000;

/// The id of this boot of the kernel, or `None` where there is no such thing.
pub(crate) fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

/// Names the mount that `dir` lives on: device and mount id. A volume that was detached and
/// attached again gets another name, because its page cache did not survive that.
pub(crate) fn mount_id(dir: &Path) -> io::Result<String> {
    use std::os::unix::fs::MetadataExt;
    let device = std::fs::metadata(dir)?.dev();
    let wanted = StatxFlags::MNT_ID | StatxFlags::from_bits_retain(MNT_ID_UNIQUE);
    // Where statx or its mount id are missing, the device alone must do.
    let mount = match rustix::fs::statx(rustix::fs::CWD, dir, AtFlags::empty(), wanted) {
        Ok(found) if found.stx_mask & (StatxFlags::MNT_ID.bits() | MNT_ID_UNIQUE) != 0 => {
            found.stx_mnt_id
        }
        _ => 0,
    };
    Ok(format!("{device:x}:{mount:x}"))
}

/// Whether `dir` lives in RAM that no power loss outlives: tmpfs or ramfs.
pub(crate) fn is_in_memory(dir: &Path) -> io::Result<bool> {
    const TMPFS: u32 = 0x0102_1994;
    const RAMFS: u32 = 0x8584_58f6;
    let kind = rustix::fs::statfs(dir)?.f_type as u32;
    Ok(kind == TMPFS || kind == RAMFS)
}

/// 128 random bits in hexadecimal, for names that must never meet again.
pub(crate) fn random_name() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// 64 random bits.
pub(crate) fn random_number() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_is_memory_and_kernel_tables_are_not() {
        assert!(is_in_memory(Path::new("/dev/shm")).unwrap());
        assert!(!is_in_memory(Path::new("/proc")).unwrap());
        assert!(is_in_memory(Path::new("/nowhere/at/all")).is_err());
    }

    #[test]
    fn names_are_stable_where_they_must_be() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(boot_id(), boot_id());
        assert_eq!(mount_id(dir.path()).unwrap(), mount_id(dir.path()).unwrap());
        assert_ne!(random_name().unwrap(), random_name().unwrap());
        assert_eq!(random_name().unwrap().len(), 32);
    }
}
