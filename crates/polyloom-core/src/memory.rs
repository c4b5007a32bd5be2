//! How much memory a run may use.

/// Bytes that can be allocated without swapping: what the system calls available, or what is left of the limit of the
/// control group (containers, batch systems) if that is less. `None` where the system does not say.
pub fn available() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let system = read("/proc/meminfo").and_then(|t| field(&t, "MemAvailable:").map(|kb| kb * 1024));
    let group = || {
        let limit: u64 = read("/sys/fs/cgroup/memory.max")?.trim().parse().ok()?;
        let used: u64 = read("/sys/fs/cgroup/memory.current")?.trim().parse().ok()?;
        // Cached files give way.
        let files = field(&read("/sys/fs/cgroup/memory.stat")?, "file")?;
        Some(limit.saturating_sub(used.saturating_sub(files)))
    };
    match (system, group()) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The number after a word that begins a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(name)).then(|| words.next()?.parse().ok())?
    })
}

/// Has the allocator hand freed buffers of 4 MiB and more back to the system at once. glibc by itself stops doing so after
/// the first such buffer, and what decompositions freed then stays with the process: half of their peak memory.
/// For programs to call once at their start; other systems' allocators are left as they are.
pub fn return_large_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt takes two numbers and changes how later allocations are served, nothing about existing ones.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 4 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 8 << 20);
    }
}

/// Has the allocator keep freed buffers of any size for the next one: training frees and takes the same ones at every
/// step, and a buffer fresh from the system costs a page fault every 4 KiB. For programs that train, at their start.
pub fn keep_large_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: as in `return_large_buffers`.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_whole_words() {
        let text = "MemTotal:       24 kB\nMemAvailable:   21 kB\nfile_mapped 3\nfile 7\n";
        assert_eq!(field(text, "MemAvailable:"), Some(21));
        assert_eq!(field(text, "file"), Some(7));
        assert_eq!(field(text, "none"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_says_something() {
        assert!(available().unwrap() > 1 << 20);
    }
}
