//! Layer-wise learning rate decay for fine-tuning: the nearer to the pixels, the smaller the rate
//! (Clark et al. 2020; BEiT, Bao et al. 2022).

use crate::optim::ParameterRule;

/// The layer of a classifier's parameter: 0 for the embedding (patches, positions, cls token), `i +
/// 1` for block `i`, and `depth + 1` for everything after the blocks.
pub fn layer(name: &str, depth: usize) -> usize {
    if is_embedding(name) || name.starts_with("patch_embed.") {
        return 0;
    }
    let block = name
        .strip_prefix("blocks.")
        .and_then(|rest| rest.split('.').next())
        .and_then(|number| number.parse::<usize>().ok());
    block.map_or(depth + 1, |block| block + 1)
}

/// Rate and weight decay of the parameter `name` of `rank` dimensions in a classifier of `depth`
/// blocks. The rate is `layer_decay^(depth + 1 - layer)`. Positions, the cls token, biases and
/// other one-dimensional tensors have no weight decay; all others have `weight_decay`.
///
/// In pre-training positions and tokens decay ([`crate::optim::AdamW::new`]): the reference
/// implementation's two recipes differ here.
pub fn rule(
    name: &str,
    rank: usize,
    depth: usize,
    layer_decay: f64,
    weight_decay: f64,
) -> ParameterRule {
    let has_no_decay = rank == 1 || name.ends_with(".bias") || is_embedding(name);
    ParameterRule {
        rate: layer_decay.powf((depth + 1 - layer(name, depth)) as f64),
        weight_decay: if has_no_decay { 0.0 } else { weight_decay },
    }
}

/// Whether a parameter is a position embedding or the cls token.
fn is_embedding(name: &str) -> bool {
    name == "cls_token" || name.starts_with("pos_embed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_counted_from_the_pixels() {
        for (name, expected) in [
            ("cls_token", 0),
            ("pos_embed_temporal", 0),
            ("patch_embed.proj.weight", 0),
            ("blocks.0.norm1.weight", 1),
            ("blocks.11.mlp.fc2.bias", 12),
            ("norm.weight", 13),
            ("head.weight", 13),
        ] {
            assert_eq!(layer(name, 12), expected, "{name}");
        }
    }

    #[test]
    fn matrices_decay_and_all_else_does_not() {
        // The whole table of a reference model is in tests/tests/training/parity.rs.
        assert_eq!(
            rule("head.weight", 2, 3, 0.5, 0.1),
            ParameterRule {
                rate: 1.0,
                weight_decay: 0.1
            }
        );
        assert_eq!(
            rule("blocks.1.attn.q.weight", 2, 3, 0.5, 0.1),
            ParameterRule {
                rate: 0.25,
                weight_decay: 0.1
            }
        );
        assert_eq!(
            rule("blocks.2.attn.q.bias", 1, 3, 0.5, 0.1),
            ParameterRule {
                rate: 0.5,
                weight_decay: 0.0
            }
        );
        assert_eq!(
            rule("pos_embed_spatial", 3, 3, 0.5, 0.1),
            ParameterRule {
                rate: 0.0625,
                weight_decay: 0.0
            }
        );
    }
}
