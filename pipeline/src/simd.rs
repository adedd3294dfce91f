//! Which vector instructions are used: the fastest set of this CPU, or the one that the environment
//! variable `INSTRUCTION_SET` names, so that tests and measurements reach the code of every set.
//!
//! The sets are ordered: a CPU that has one has all before it.

use std::sync::LazyLock;

/// Instruction sets that code is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstructionSet {
    /// Any CPU.
    Plain,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL, and FMA.
    Avx512,
    /// The same, with products of bf16 pairs.
    Avx512Bf16,
}

impl InstructionSet {
    /// All sets, the best last.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Avx2, Self::Avx512, Self::Avx512Bf16];

    /// The name that `INSTRUCTION_SET` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512bf16",
        }
    }

    /// The best set that the CPU supports.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let has_256 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let has_512 = has_256
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if has_512 && is_x86_feature_detected!("avx512bf16") {
                return Self::Avx512Bf16;
            }
            if has_512 {
                return Self::Avx512;
            }
            if has_256 {
                return Self::Avx2;
            }
        }
        Self::Plain
    }

    /// The set that is fastest on this CPU: the best, but not that of pairs on those of Intel,
    /// which multiply them at half the rate of f32 (Sapphire Rapids: 82 against 171 GFLOP/s with
    /// one thread; Zen 4: 402 against 210 with two).
    pub fn fastest() -> Self {
        #[cfg(target_arch = "x86_64")]
        if Self::best() == Self::Avx512Bf16 && is_intel() {
            return Self::Avx512;
        }
        Self::best()
    }

    /// The sets that the CPU supports, the best last.
    pub fn supported() -> impl Iterator<Item = Self> {
        let best = Self::best();
        Self::ALL.into_iter().filter(move |&set| set <= best)
    }

    /// The set of a name, if a CPU whose best set is `best` supports it.
    fn from_name(name: &str, best: Self) -> Result<Self, String> {
        let accepted = || {
            let names: Vec<_> = Self::ALL.map(Self::name).into();
            format!("it takes one of {}", names.join(", "))
        };
        let set = Self::ALL.into_iter().find(|set| set.name() == name);
        let set = set.ok_or_else(|| format!("INSTRUCTION_SET={name}: {}", accepted()))?;
        if set > best {
            return Err(format!(
                "INSTRUCTION_SET={name}: the best set of this CPU is {}; {}",
                best.name(),
                accepted()
            ));
        }
        Ok(set)
    }
}

static CHOSEN: LazyLock<Result<InstructionSet, String>> = LazyLock::new(|| {
    std::env::var_os("INSTRUCTION_SET").map_or(Ok(InstructionSet::fastest()), |name| {
        InstructionSet::from_name(&name.to_string_lossy(), InstructionSet::best())
    })
});

/// Whether the CPU names Intel as its maker.
#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0);
    [leaf.ebx, leaf.edx, leaf.ecx]
        .map(u32::to_le_bytes)
        .as_flattened()
        == b"GenuineIntel"
}

/// `INSTRUCTION_SET` is unknown, or a set that the CPU lacks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InstructionSetError(String);

/// The set to use. The environment is read at the first call. Programs check it when they start.
///
/// # Errors
/// When `INSTRUCTION_SET` is unknown, or the CPU lacks that set.
pub fn chosen() -> Result<InstructionSet, InstructionSetError> {
    CHOSEN.clone().map_err(InstructionSetError)
}

/// The set to use, as [`chosen`].
///
/// # Panics
/// When `INSTRUCTION_SET` is unknown, or the CPU lacks that set.
#[inline]
pub fn instruction_set() -> InstructionSet {
    match &*CHOSEN {
        Ok(set) => *set,
        Err(error) => panic!("{error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    fn pairs_are_not_the_default_on_intel() {
        let cpus = std::fs::read_to_string("/proc/cpuinfo").expect("the CPUs");
        let is_intel = cpus.contains("GenuineIntel");
        let expected = match InstructionSet::best() {
            InstructionSet::Avx512Bf16 if is_intel => InstructionSet::Avx512,
            best => best,
        };
        assert_eq!(InstructionSet::fastest(), expected);
    }

    #[test]
    fn sets_are_named_and_refused_where_the_cpu_lacks_them() {
        for best in InstructionSet::ALL {
            for set in InstructionSet::ALL {
                let named = InstructionSet::from_name(set.name(), best);
                assert_eq!(named.is_ok(), set <= best, "{set:?} where {best:?} is best");
                assert!(named.is_err() || named == Ok(set));
            }
        }
        assert_eq!(
            InstructionSet::from_name("avx512", InstructionSet::Avx2)
                .expect_err("a set that cannot be used"),
            "INSTRUCTION_SET=avx512: the best set of this CPU is avx2; \
             it takes one of plain, avx2, avx512, avx512bf16"
        );
        for name in ["", "AVX2", "avx1024"] {
            assert_eq!(
                InstructionSet::from_name(name, InstructionSet::Avx2)
                    .expect_err("a set that cannot be used"),
                format!("INSTRUCTION_SET={name}: it takes one of plain, avx2, avx512, avx512bf16")
            );
        }
        assert!(InstructionSet::supported().any(|set| set == instruction_set()));
    }
}
