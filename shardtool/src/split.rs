//! Splits of the videos of a build by their content: `train=0.9,val=0.1`.

/// Bits of a hash that place a video between 0 and 1.
const BITS: u32 = 52;

/// Names of splits, with their shares of the videos, which sum to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitShares(pub Vec<(String, f64)>);

impl SplitShares {
    /// Parses the value of `--split`.
    ///
    /// # Errors
    /// When a name is empty or given twice, a share is not a number above 0, or the sum is not 1.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse(text).map(Self)
    }
}

fn parse(text: &str) -> Result<Vec<(String, f64)>, String> {
    let mut splits: Vec<(String, f64)> = Vec::new();
    for part in text.split(',') {
        let form = || format!("\"{part}\" is not NAME=SHARE, as in train=0.9,val=0.1");
        let (name, share) = part.split_once('=').ok_or_else(form)?;
        let name = name.trim();
        let share: f64 = share.trim().parse().map_err(|_| form())?;
        let is_name = !name.is_empty() && !name.contains(['/', ':', '\'', '"']);
        if !(is_name && share > 0.0 && share <= 1.0) {
            return Err(form());
        }
        if splits.iter().any(|(known, _)| known == name) {
            return Err(format!("\"{name}\" is given twice"));
        }
        splits.push((name.to_owned(), share));
    }
    let sum: f64 = splits.iter().map(|(_, share)| share).sum();
    if (sum - 1.0).abs() > 1e-6 {
        return Err(format!("the shares sum to {sum}, not to 1"));
    }
    Ok(splits)
}

/// Returns the split of the video with the hash `blake3`, in hexadecimal; none without splits. It
/// depends on nothing but the bytes of the video: it stays when videos are added, and copies of a
/// video are in one split.
pub fn of_video(splits: &[(String, f64)], blake3: &str) -> Option<String> {
    let (last, _) = splits.last()?;
    let digits = blake3.get(..(BITS / 4) as usize)?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    let place = number as f64 / (1_u64 << BITS) as f64;
    let mut end = 0.0;
    for (name, share) in splits {
        end += share;
        if place < end {
            return Some(name.clone());
        }
    }
    // The shares sum to 1 but for rounding.
    Some(last.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_sum_to_one() {
        assert_eq!(
            parse("train=0.9, val=0.1"),
            Ok(vec![("train".to_owned(), 0.9), ("val".to_owned(), 0.1)])
        );
        for (text, error) in [
            ("train", "NAME=SHARE"),
            ("train=0.9", "sum to 0.9"),
            ("train=0.5,train=0.5", "twice"),
            ("=1", "NAME=SHARE"),
            ("a:b=1", "NAME=SHARE"),
            ("a=nan", "NAME=SHARE"),
            ("a=-1,b=2", "NAME=SHARE"),
        ] {
            let refused = parse(text).expect_err(text);
            assert!(refused.contains(error), "{text}: {refused}");
        }
    }

    #[test]
    fn a_split_has_its_share_of_the_videos_and_keeps_them() {
        let splits = parse("train=0.8,val=0.15,test=0.05").expect("valid");
        let split = |number: u32| {
            let hash = blake3::hash(&number.to_le_bytes()).to_hex();
            of_video(&splits, &hash).expect("a split")
        };
        let all: Vec<String> = (0..10_000).map(split).collect();
        for (name, share) in &splits {
            let found = all.iter().filter(|split| *split == name).count() as f64 / 1e4;
            assert!((found - share).abs() < 0.01, "{name}: {found}");
        }
        assert_eq!(of_video(&splits, &"f".repeat(64)).as_deref(), Some("test"));
        assert_eq!(of_video(&splits, &"0".repeat(64)).as_deref(), Some("train"));
        assert_eq!(of_video(&[], &"0".repeat(64)), None);
    }
}
