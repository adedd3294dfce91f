//! Groups of items that are near each other.

use pipeline::video::measure::scores;
use std::collections::{BTreeSet, HashMap};

/// Words of a frame's hash.
const FRAME_WORDS: usize = 4;

/// Bits of a piece of a hash that is looked up.
const PIECE_BITS: u32 = 16;

/// Groups of items that are connected by pairs of near ones.
#[derive(Debug, Default)]
pub struct Groups {
    /// Groups of two or more, in the order of their first items; items in order, each with its
    /// distance to the nearest item before it in the group.
    groups: Vec<Vec<(usize, f64)>>,
}

impl Groups {
    /// The items of each group with their distances.
    pub fn members(&self) -> &[Vec<(usize, f64)>] {
        &self.groups
    }

    /// All items but the first of each group.
    pub fn dropped(&self) -> BTreeSet<usize> {
        let others = self.groups.iter().flat_map(|group| &group[1..]);
        others.map(|&(item, _)| item).collect()
    }

    /// Groups `items` items by `pairs` of near ones, `(one, other, distance)` with `one < other`.
    fn new(items: usize, pairs: &[(usize, usize, f64)]) -> Self {
        let mut parent: Vec<usize> = (0..items).collect();
        let mut nearest: HashMap<usize, f64> = HashMap::new();
        for &(one, other, distance) in pairs {
            let (a, b) = (root(&mut parent, one), root(&mut parent, other));
            // The lowest item is the root.
            parent[a.max(b)] = a.min(b);
            let known = nearest.entry(other).or_insert(distance);
            *known = known.min(distance);
        }
        let mut groups: HashMap<usize, Vec<(usize, f64)>> = HashMap::new();
        for item in 0..items {
            let root = root(&mut parent, item);
            let distance = nearest.get(&item).copied().unwrap_or(0.0);
            groups.entry(root).or_default().push((item, distance));
        }
        let mut groups: Vec<_> = groups
            .into_values()
            .filter(|group| group.len() > 1)
            .collect();
        groups.sort_unstable_by_key(|group| group[0].0);
        Self { groups }
    }
}

fn root(parent: &mut [usize], item: usize) -> usize {
    let mut at = item;
    while parent[at] != at {
        parent[at] = parent[parent[at]];
        at = parent[at];
    }
    at
}

/// Groups items whose hashes differ by at most `distance` bits in each of their frames, where
/// `may_pair` allows it. Items without a hash are in no group.
///
/// The middle frames of such items have hashes that differ by at most one bit in one of their
/// sixteen pieces, if `distance` is at most 31: they are found by looking up each piece, and each
/// piece with one bit changed. For larger distances, all pairs are compared.
pub fn by_hash<const WORDS: usize>(
    hashes: &[Option<[u64; WORDS]>],
    distance: u32,
    may_pair: impl Fn(usize, usize) -> bool,
) -> Groups {
    let mut pairs = Vec::new();
    let mut compare = |one: usize, other: usize| {
        if let (Some(a), Some(b)) = (&hashes[one], &hashes[other])
            && may_pair(one, other)
        {
            let found = scores::distance(a, b);
            if found <= distance {
                pairs.push((one.min(other), one.max(other), f64::from(found)));
            }
        }
    };
    if distance >= 2 * 256 / PIECE_BITS {
        for other in 0..hashes.len() {
            (0..other).for_each(|one| compare(one, other));
        }
        return Groups::new(hashes.len(), &pairs);
    }
    let middle = WORDS / 2 / FRAME_WORDS * FRAME_WORDS;
    let piece = |hash: &[u64; WORDS], number: u32| {
        let word = hash[middle + (number * PIECE_BITS / 64) as usize];
        (word >> (number * PIECE_BITS % 64)) as u16
    };
    let mut index: HashMap<(u32, u16), Vec<usize>> = HashMap::new();
    let mut candidates = BTreeSet::new();
    for (item, hash) in hashes.iter().enumerate() {
        let Some(hash) = hash else { continue };
        candidates.clear();
        for number in 0..256 / PIECE_BITS {
            let exact = piece(hash, number);
            let changed = (0..PIECE_BITS).map(|bit| exact ^ 1 << bit);
            for value in changed.chain([exact]) {
                candidates.extend(index.get(&(number, value)).into_iter().flatten().copied());
            }
        }
        candidates.iter().for_each(|&one| compare(one, item));
        for number in 0..256 / PIECE_BITS {
            index
                .entry((number, piece(hash, number)))
                .or_default()
                .push(item);
        }
    }
    Groups::new(hashes.len(), &pairs)
}

/// Groups items whose features have a cosine similarity of at least `similarity`, where `may_pair`
/// allows it. The distance is 1 minus the similarity. Compares all pairs.
pub fn by_features(
    features: &[Vec<f32>],
    similarity: f64,
    may_pair: impl Fn(usize, usize) -> bool,
) -> Groups {
    let normal: Vec<Vec<f32>> = features
        .iter()
        .map(|feature| {
            let length = feature
                .iter()
                .map(|value| value * value)
                .sum::<f32>()
                .sqrt();
            let scale = 1.0 / length.max(f32::MIN_POSITIVE);
            feature.iter().map(|value| value * scale).collect()
        })
        .collect();
    let mut pairs = Vec::new();
    for other in 0..normal.len() {
        for one in 0..other {
            let dot: f32 = normal[one]
                .iter()
                .zip(&normal[other])
                .map(|(a, b)| a * b)
                .sum();
            if f64::from(dot) >= similarity && may_pair(one, other) {
                pairs.push((one, other, 1.0 - f64::from(dot)));
            }
        }
    }
    Groups::new(normal.len(), &pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::sampling::order::{Purpose, stream};
    use rand::RngExt;

    #[test]
    fn near_hashes_are_found_wherever_their_bits_differ() {
        let mut random = stream(Purpose::Order, 1, 0, 0);
        let mut hashes: Vec<Option<[u64; 12]>> = Vec::new();
        for _ in 0..200 {
            let hash: [u64; 12] = std::array::from_fn(|_| random.random());
            hashes.push(Some(hash));
            let mut near = hash;
            // 31 different bits in each frame.
            for frame in 0..3 {
                let mut bits = BTreeSet::new();
                while bits.len() < 31 {
                    bits.insert(random.random_range(0..256_usize));
                }
                for bit in bits {
                    near[4 * frame + bit / 64] ^= 1 << (bit % 64);
                }
            }
            hashes.push(Some(near));
        }
        let groups = by_hash(&hashes, 31, |_, _| true);
        assert_eq!(groups.members().len(), 200);
        for (pair, group) in groups.members().iter().enumerate() {
            assert_eq!(*group, [(2 * pair, 0.0), (2 * pair + 1, 31.0)]);
        }
        assert_eq!(groups.dropped().len(), 200);
        assert!(by_hash(&hashes, 30, |_, _| true).members().is_empty());
        assert!(by_hash(&hashes, 31, |_, _| false).members().is_empty());
        assert_eq!(by_hash(&hashes, 32, |_, _| true).members().len(), 200);
        hashes[1] = None;
        assert_eq!(by_hash(&hashes, 31, |_, _| true).members().len(), 199);
    }

    #[test]
    fn groups_are_connected() {
        let pairs = [(1, 4, 2.0), (3, 4, 1.0), (0, 2, 0.0)];
        let groups = Groups::new(6, &pairs);
        assert_eq!(
            groups.members(),
            [vec![(0, 0.0), (2, 0.0)], vec![(1, 0.0), (3, 0.0), (4, 1.0)]]
        );
    }

    #[test]
    fn features_are_compared_by_their_angle() {
        let features = [vec![1.0, 0.0], vec![5.0, 0.1], vec![0.0, 1.0]];
        let groups = by_features(&features, 0.99, |_, _| true);
        assert_eq!(groups.members().len(), 1);
        assert_eq!(groups.members()[0][1].0, 1);
    }
}
