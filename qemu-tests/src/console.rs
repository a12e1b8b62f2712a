//! What no console of a healthy machine shows.

/// Something that fails a test when a line of the console has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// What the line has.
    pub text: &'static str,
    /// What it means.
    pub means: &'static str,
}

const fn pattern(text: &'static str, means: &'static str) -> Pattern {
    Pattern { text, means }
}

/// The patterns. Lines are compared as they are, case included.
pub const PATTERNS: &[Pattern] = &[
    pattern("Kernel panic", "the kernel has given up"),
    pattern("Oops:", "a fault in the kernel"),
    pattern("BUG:", "a bug in the kernel"),
    pattern("WARNING: ", "a warning of the kernel"),
    pattern("Call Trace:", "a fault in the kernel"),
    pattern("rcu_sched self-detected stall", "a CPU is stuck"),
    pattern("soft lockup", "a CPU is stuck"),
    pattern("blocked for more than", "a task is stuck"),
    pattern("Out of memory", "memory has run out"),
    pattern("oom-kill", "memory has run out"),
    pattern("ordering cycle", "units wait for each other"),
    pattern("Failed to start", "a unit has failed"),
    pattern("Failed to mount", "a mount has failed"),
    pattern("Failed unmounting", "somebody keeps a file system busy"),
    pattern("Failed to listen", "a socket has failed"),
    pattern("Dependency failed", "a unit's dependency has failed"),
    pattern("Timed out waiting", "a device or unit did not come"),
    pattern("A start job is running", "a unit takes its time"),
    pattern("is corrupted", "dm-verity has found a bad block"),
    pattern("EXT4-fs error", "a broken file system"),
    pattern("Buffer I/O error", "a disk fails"),
    pattern("I/O error, dev", "a disk fails"),
    pattern("Delayed block allocation failed", "a broken file system"),
    pattern("segfault at", "a program has crashed"),
    pattern("general protection fault", "a program has crashed"),
    pattern("traps:", "a program has crashed"),
    pattern("dumped core", "a program has crashed"),
    pattern("' panicked at", "a program of ours has panicked"),
    pattern("emergency mode", "PID 1 has given up"),
    pattern("emergency.target", "PID 1 has given up"),
    pattern("Attempted to kill init", "PID 1 has ended"),
];

/// The lines of `console` that have a pattern and none of `allowed`, with what they mean.
pub fn suspicious(console: &str, allowed: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for line in console.lines() {
        let Some(pattern) = PATTERNS.iter().find(|pattern| line.contains(pattern.text)) else {
            continue;
        };
        if !allowed
            .iter()
            .any(|allowed| line.contains(allowed.as_str()))
        {
            found.push(format!("{}: {}", pattern.means, line.trim()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
BdsDxe: loading Boot0001 \"UEFI Misc Device\" from PciRoot(0x0)/Pci(0x3,0x0)
[    0.000000] Linux version 6.18.15+deb13-cloud-amd64
[    1.234567] EXT4-fs (vda7): mounted filesystem r/w with ordered data mode.
[  OK  ] Started systemd-journald.service - Journal Service.
[  OK  ] Reached target multi-user.target - Multi-User System.
larder: dev 10.0.2.15 healthy
";

    #[test]
    fn a_good_boot_is_not_suspicious() {
        assert_eq!(suspicious(GOOD, &[]), Vec::<String>::new());
    }

    #[test]
    fn each_bad_line_is_seen_and_can_be_allowed() {
        let bad = "[    5.0] Kernel panic - not syncing: Attempted to kill init!
[    5.0] WARNING: CPU: 0 PID: 1 at fs/inode.c:1
[FAILED] Failed to start cas.mount - /cas.
[DEPEND] Dependency failed for larder-cache.service - Cache.
[    3.1] systemd[1]: a.service: Found ordering cycle on b.service/start
[    2.2] device-mapper: verity: 254:0: data block 17 is corrupted
[    9.9] EXT4-fs error (device vda8): ext4_lookup:1787: inode #2: comm ls: deleted
[    9.9] cache[311]: segfault at 0 ip 00007f sp 00007f error 4
thread 'main' panicked at src/main.rs:1:1:
";
        assert_eq!(suspicious(bad, &[]).len(), bad.lines().count());
        let allowed = ["cas.mount".to_owned(), "larder-cache.service".to_owned()];
        let left = suspicious(bad, &allowed);
        assert_eq!(left.len(), bad.lines().count() - 2);
        assert!(left[0].starts_with("the kernel has given up: "), "{left:?}");
    }
}
