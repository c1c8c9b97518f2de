//! The system calls that a confined process may not make, as a program for the kernel's filter.
//!
//! A list of refusals, not of permissions: PHP and the libraries of its extensions may do whatever a program needs; what only a
//! machine's administrator or a debugger needs is answered with "not permitted". What has a fallback in common libraries is
//! answered as unknown instead. Programs of another architecture are refused whole, since their numbers mean other calls.
//!
//! php-fpm's slow log attaches to its own workers and reads their memory; these three requests of `ptrace` stay, whoever may be
//! traced is decided by the user id, as ever. Flags of `clone3` are in memory that a filter cannot read: it is unknown here, and
//! `clone` takes its place.

use libc::{c_long, sock_filter};
use serde_json::{Value, json};

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const IS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IS_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const HAS_ANY: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const ANSWER: u32 = libc::BPF_RET | libc::BPF_K;

// Offsets in the kernel's `seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// The lower half of the first argument.
const FIRST: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };
/// The lower half of the second one.
const SECOND: u32 = FIRST + 8;

const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;
const NOT_PERMITTED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
const NO_SUCH_FAMILY: u32 = libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32;

#[cfg(target_arch = "x86_64")]
const OURS: Option<u32> = Some(0xC000_003E);
#[cfg(target_arch = "aarch64")]
const OURS: Option<u32> = Some(0xC000_00B7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const OURS: Option<u32> = None;

/// From here on x86-64 has its calls a second time, for programs with short pointers.
const SECOND_TABLE: u32 = 0x4000_0000;

/// A system call: its number, and its name.
type Call = (c_long, &'static str);

macro_rules! call {
    ($name:ident) => {
        (libc::$name, stringify!($name))
    };
}

const REFUSED: &[Call] = &[
    // What is mounted where, and the root of everything.
    call!(SYS_mount),
    call!(SYS_umount2),
    call!(SYS_pivot_root),
    call!(SYS_chroot),
    call!(SYS_move_mount),
    call!(SYS_open_tree),
    call!(SYS_fsopen),
    call!(SYS_fsconfig),
    call!(SYS_fsmount),
    call!(SYS_fspick),
    call!(SYS_mount_setattr),
    call!(SYS_open_by_handle_at),
    call!(SYS_quotactl),
    call!(SYS_swapon),
    call!(SYS_swapoff),
    // Namespaces.
    call!(SYS_unshare),
    call!(SYS_setns),
    // The kernel itself.
    call!(SYS_bpf),
    call!(SYS_init_module),
    call!(SYS_finit_module),
    call!(SYS_delete_module),
    call!(SYS_kexec_load),
    call!(SYS_kexec_file_load),
    call!(SYS_reboot),
    call!(SYS_syslog),
    call!(SYS_acct),
    call!(SYS_perf_event_open),
    call!(SYS_fanotify_init),
    call!(SYS_lookup_dcookie),
    call!(SYS_sethostname),
    call!(SYS_setdomainname),
    call!(SYS_settimeofday),
    call!(SYS_clock_settime),
    call!(SYS_clock_adjtime),
    call!(SYS_adjtimex),
    call!(SYS_vhangup),
    // Often the way to a hole in the kernel, never a web application's.
    call!(SYS_userfaultfd),
    call!(SYS_keyctl),
    call!(SYS_add_key),
    call!(SYS_request_key),
    call!(SYS_personality),
    // Other processes.
    call!(SYS_process_vm_readv),
    call!(SYS_process_vm_writev),
    call!(SYS_process_madvise),
    call!(SYS_pidfd_getfd),
    call!(SYS_kcmp),
    #[cfg(target_arch = "x86_64")]
    call!(SYS_iopl),
    #[cfg(target_arch = "x86_64")]
    call!(SYS_ioperm),
    #[cfg(target_arch = "x86_64")]
    call!(SYS_modify_ldt),
    #[cfg(target_arch = "x86_64")]
    call!(SYS_uselib),
    #[cfg(target_arch = "x86_64")]
    call!(SYS_ustat),
    #[cfg(target_arch = "x86_64")]
    call!(SYS_sysfs),
];

const UNKNOWN_HERE: &[Call] = &[
    call!(SYS_clone3),
    call!(SYS_io_uring_setup),
    call!(SYS_io_uring_enter),
    call!(SYS_io_uring_register),
];

/// Of `clone`; all kinds of namespaces.
const NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// Attach, read, detach.
const TRACED: [u32; 3] = [libc::PTRACE_ATTACH, libc::PTRACE_PEEKDATA, libc::PTRACE_DETACH];

/// Of `ioctl`: what types on a terminal as if its user did. wp-cli has the operator's.
const TYPING: [u32; 2] = [libc::TIOCSTI as u32, libc::TIOCLINUX as u32];

const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// The filter; none on an architecture whose numbers nobody has looked up.
pub(super) fn program() -> Option<Vec<sock_filter>> {
    let mut program =
        vec![load(ARCHITECTURE), when(IS, OURS?, 1, 0), answer(NOT_PERMITTED), load(NUMBER)];
    if cfg!(target_arch = "x86_64") {
        program.extend([when(IS_AT_LEAST, SECOND_TABLE, 0, 1), answer(NOT_PERMITTED)]);
    }
    for (calls, verdict) in [(REFUSED, NOT_PERMITTED), (UNKNOWN_HERE, UNKNOWN)] {
        for (call, _) in calls {
            program.extend([when(IS, number(*call), 0, 1), answer(verdict)]);
        }
    }
    program.extend([
        when(IS, number(libc::SYS_clone), 0, 4),
        load(FIRST),
        when(HAS_ANY, NAMESPACES as u32, 0, 1),
        answer(NOT_PERMITTED),
        answer(ALLOWED),
    ]);
    program.extend([
        when(IS, number(libc::SYS_ioctl), 0, 5),
        load(SECOND),
        when(IS, TYPING[0], 1, 0),
        when(IS, TYPING[1], 0, 1),
        answer(NOT_PERMITTED),
        answer(ALLOWED),
    ]);
    one_of(&mut program, libc::SYS_ptrace, &TRACED, NOT_PERMITTED);
    one_of(&mut program, libc::SYS_socket, &FAMILIES.map(|family| family as u32), NO_SUCH_FAMILY);
    program.push(answer(ALLOWED));
    Some(program)
}

/// The same filter in the words of Docker, whose own list lets processes trace each other. Its rules cannot say "none of
/// these", so the ones that are refused are said one by one.
pub(crate) fn profile() -> Option<Value> {
    let architecture = match () {
        () if cfg!(target_arch = "x86_64") => "SCMP_ARCH_X86_64",
        () if cfg!(target_arch = "aarch64") => "SCMP_ARCH_AARCH64",
        () => return None,
    };
    let refusal = |names: Vec<&str>, error: i32, arguments: Vec<Value>| json!({ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": error, "args": arguments });
    let first = |op: &str, value: u64, second: u64| {
        vec![
            json!({ "index": 0, "op": format!("SCMP_CMP_{op}"), "value": value, "valueTwo": second }),
        ]
    };
    let mut rules = vec![
        refusal(names(REFUSED), libc::EPERM, vec![]),
        refusal(names(UNKNOWN_HERE), libc::ENOSYS, vec![]),
    ];
    for bit in (0..i32::BITS).map(|at| 1 << at).filter(|bit| NAMESPACES as u32 & bit != 0) {
        let bit = u64::from(bit);
        rules.push(refusal(vec!["clone"], libc::EPERM, first("MASKED_EQ", bit, bit)));
    }
    for request in TYPING {
        // The kernel looks at the lower half alone.
        let half = u64::from(u32::MAX);
        let arguments = vec![
            json!({ "index": 1, "op": "SCMP_CMP_MASKED_EQ", "value": half, "valueTwo": request }),
        ];
        rules.push(refusal(vec!["ioctl"], libc::EPERM, arguments));
    }
    let families = FAMILIES.map(|family| family as u32);
    let answers = [("ptrace", &TRACED[..], libc::EPERM), ("socket", &families, libc::EAFNOSUPPORT)];
    for (call, values, error) in answers {
        let most = values.iter().copied().max().unwrap_or_default();
        rules.push(refusal(vec![call], error, first("GT", most.into(), 0)));
        for value in (0..most).filter(|value| !values.contains(value)) {
            rules.push(refusal(vec![call], error, first("EQ", value.into(), 0)));
        }
    }
    Some(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": [architecture],
        "syscalls": rules,
    }))
}

fn names(calls: &[Call]) -> Vec<&'static str> {
    calls.iter().map(|(_, name)| name.trim_start_matches("SYS_")).collect()
}

/// A call whose first argument must be one of these.
fn one_of(program: &mut Vec<sock_filter>, call: c_long, values: &[u32], otherwise: u32) {
    let skip = 2 * values.len() as u8 + 2;
    program.extend([when(IS, number(call), 0, skip), load(FIRST)]);
    for value in values {
        program.extend([when(IS, *value, 0, 1), answer(ALLOWED)]);
    }
    program.push(answer(otherwise));
}

fn number(call: c_long) -> u32 {
    u32::try_from(call).expect("numbers of system calls are small")
}

fn load(offset: u32) -> sock_filter {
    sock_filter { code: LOAD as u16, jt: 0, jf: 0, k: offset }
}

/// Goes `yes` or `no` instructions further than the next one.
fn when(test: u32, value: u32, yes: u8, no: u8) -> sock_filter {
    sock_filter { code: test as u16, jt: yes, jf: no, k: value }
}

fn answer(verdict: u32) -> sock_filter {
    sock_filter { code: ANSWER as u16, jt: 0, jf: 0, k: verdict }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer; only the instructions that are used here.
    fn judge(architecture: u32, call: c_long, [first, second]: [u64; 2]) -> u32 {
        let program = program().expect("an architecture that is known");
        let (mut at, mut accumulator) = (0, 0_u32);
        loop {
            let step = program[at];
            at += 1;
            let code = u32::from(step.code);
            let holds = match code {
                LOAD => {
                    accumulator = match step.k {
                        NUMBER => call as u32,
                        ARCHITECTURE => architecture,
                        SECOND => second as u32,
                        _ => first as u32,
                    };
                    continue;
                }
                ANSWER => return step.k,
                IS => accumulator == step.k,
                IS_AT_LEAST => accumulator >= step.k,
                _ => accumulator & step.k != 0,
            };
            at += usize::from(if holds { step.jt } else { step.jf });
        }
    }

    fn ours(call: c_long, first: u64) -> u32 {
        judge(OURS.expect("an architecture that is known"), call, [first, 0])
    }

    #[test]
    fn what_php_needs_passes_and_what_administrators_need_does_not() {
        for call in [libc::SYS_openat, libc::SYS_execve, libc::SYS_connect, libc::SYS_mprotect] {
            assert_eq!(ours(call, 0), ALLOWED, "{call}");
        }
        for (call, _) in REFUSED {
            assert_eq!(ours(*call, 0), NOT_PERMITTED, "{call}");
        }
        assert_eq!(ours(libc::SYS_clone3, 0), UNKNOWN);
        assert_eq!(judge(0x4000_0003, libc::SYS_openat, [0, 0]), NOT_PERMITTED);
        assert_eq!(ours(libc::SYS_openat + 0x4000_0000, 0), NOT_PERMITTED);
    }

    #[test]
    fn arguments_decide_where_a_call_has_two_sides() {
        let thread = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_THREAD;
        assert_eq!(ours(libc::SYS_clone, thread as u64), ALLOWED);
        assert_eq!(ours(libc::SYS_clone, libc::SIGCHLD as u64), ALLOWED);
        assert_eq!(ours(libc::SYS_clone, libc::CLONE_NEWUSER as u64), NOT_PERMITTED);
        assert_eq!(ours(libc::SYS_ptrace, libc::PTRACE_ATTACH.into()), ALLOWED);
        assert_eq!(ours(libc::SYS_ptrace, libc::PTRACE_DETACH.into()), ALLOWED);
        for request in [libc::PTRACE_TRACEME, libc::PTRACE_POKEDATA, libc::PTRACE_SEIZE] {
            assert_eq!(ours(libc::SYS_ptrace, request.into()), NOT_PERMITTED);
        }
        let ioctl = |request| {
            let ours = OURS.expect("an architecture that is known");
            judge(ours, libc::SYS_ioctl, [0, request])
        };
        assert_eq!(ioctl(libc::TIOCGWINSZ), ALLOWED);
        for request in [libc::TIOCSTI, libc::TIOCLINUX, libc::TIOCSTI | 1 << 32] {
            assert_eq!(ioctl(request), NOT_PERMITTED);
        }
        assert_eq!(ours(libc::SYS_socket, libc::AF_INET6 as u64), ALLOWED);
        assert_eq!(ours(libc::SYS_socket, libc::AF_PACKET as u64), NO_SUCH_FAMILY);
    }
}
