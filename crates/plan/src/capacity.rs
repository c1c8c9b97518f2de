//! How much memory each engine gets, where the operator did not say.

use pressroom_model::unit::ByteSize;

const MIB: u64 = 1 << 20;

/// MariaDB: an eighth of the machine's memory, at least 128 MiB and at most 4 GiB.
pub fn database_memory(machine: ByteSize) -> ByteSize {
    ByteSize::bytes((machine.get() / 8).clamp(128 * MIB, 4096 * MIB))
}

/// The object cache: a sixteenth, at least 64 MiB and at most 1 GiB.
pub fn object_cache_memory(machine: ByteSize) -> ByteSize {
    ByteSize::bytes((machine.get() / 16).clamp(64 * MIB, 1024 * MIB))
}

/// Sessions: a thirty-second, at least 64 MiB and at most 512 MiB.
pub fn sessions_memory(machine: ByteSize) -> ByteSize {
    ByteSize::bytes((machine.get() / 32).clamp(64 * MIB, 512 * MIB))
}

/// PHP: three quarters of a node's memory, MiB; the rest is for everything else.
pub fn php_memory_mib(machine_mib: u64) -> u64 {
    machine_mib / 4 * 3
}

/// One instance, MiB: 64 for the bytecode and 16 for each worker, which is what WordPress was measured to take of memory that is not
/// shared.
pub fn instance_memory_mib(workers: u16) -> u64 {
    64 + 16 * u64::from(workers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_machines_stay_in_bounds() {
        assert_eq!(database_memory(ByteSize::mib(512)), ByteSize::mib(128));
        assert_eq!(database_memory(ByteSize::mib(8192)), ByteSize::mib(1024));
        assert_eq!(database_memory(ByteSize::mib(1 << 20)), ByteSize::mib(4096));
        assert_eq!(object_cache_memory(ByteSize::mib(4096)), ByteSize::mib(256));
        assert_eq!(sessions_memory(ByteSize::mib(1024)), ByteSize::mib(64));
    }
}
