//! How many threads this process should start.

use rustix::thread::{CpuSet, sched_getaffinity};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Number of threads that this process can run at once: the CPUs of its affinity mask (taskset,
/// cpusets), at most the quota of its cgroup (containers), rounded down. Each hyper-thread counts.
pub fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// [`all_cores`], where the hyper-threads of a core count once. Matrix products keep the vector
/// units of a core busy with one thread; a second one would only share its caches.
pub fn physical_cores() -> usize {
    let cpus = sched_getaffinity(None).map_or_else(
        |_| Vec::new(),
        |set| {
            (0..CpuSet::MAX_CPU)
                .filter(|&cpu| set.is_set(cpu))
                .collect()
        },
    );
    distinct_cores(Path::new("/sys/devices/system/cpu"), &cpus)
        .map_or_else(all_cores, |cores| cores.min(all_cores()))
}

/// Number of cores with at least one of `cpus`, according to the folder `system`. None if it does
/// not say.
fn distinct_cores(system: &Path, cpus: &[usize]) -> Option<usize> {
    let siblings = |cpu: &usize| {
        let topology = system.join(format!("cpu{cpu}/topology"));
        // The second is its name before Linux 5.3.
        fs::read_to_string(topology.join("core_cpus_list"))
            .or_else(|_| fs::read_to_string(topology.join("thread_siblings_list")))
            .ok()
    };
    let cores: Option<BTreeSet<String>> = cpus.iter().map(siblings).collect();
    cores.map(|cores| cores.len()).filter(|&cores| cores > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hyper_threads_of_a_core_count_once() {
        let system = tempfile::tempdir().expect("a folder");
        for (cpu, name, siblings) in [
            (0, "core_cpus_list", "0,2\n"),
            (1, "core_cpus_list", "1,3\n"),
            (2, "core_cpus_list", "0,2\n"),
            (3, "thread_siblings_list", "1,3\n"),
        ] {
            let topology = system.path().join(format!("cpu{cpu}/topology"));
            fs::create_dir_all(&topology).expect("create");
            fs::write(topology.join(name), siblings).expect("write");
        }
        let cores = |cpus: &[usize]| distinct_cores(system.path(), cpus);
        assert_eq!(cores(&[0, 1, 2, 3]), Some(2));
        assert_eq!(cores(&[0, 2]), Some(1), "an affinity mask of one core");
        assert_eq!(cores(&[0, 1]), Some(2));
        assert_eq!(cores(&[0, 4]), None, "a CPU that is not described");
        assert_eq!(cores(&[]), None);
        let cores = physical_cores();
        assert!((1..=all_cores()).contains(&cores));
    }
}
