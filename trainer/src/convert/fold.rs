//! Folds differences between formats into weights, in double precision: the normalisation of
//! pixels, the scale of predictions, and a bias that a format does not have.

use super::rules::Tensors;
use candle_core::{DType, Device, Result, Tensor};
use pipeline::transform::{MEAN, STD};

/// Mean and standard deviation per channel, by which pixels in [0, 1] are normalised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Normalisation {
    pub(crate) mean: [f64; 3],
    pub(crate) std: [f64; 3],
}

impl Normalisation {
    /// Our normalisation, which is also that of the reference implementation and of PySlowFast.
    pub(crate) const OURS: Self = Self {
        mean: [MEAN as f64; 3],
        std: [STD as f64; 3],
    };

    /// ImageNet's normalisation, used by VideoMAE and transformers.
    pub(crate) const IMAGENET: Self = Self {
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    };
}

/// Converts a patch embedding for pixels normalised by `from` to one for pixels normalised by `to`,
/// with the same result: a pixel `x` was `(x - m) / s` and is `y = (x - m') / s'`, so `(x - m) /
/// s = y s' / s + (m' - m) / s`. The first factor goes into the weight, the rest into the bias.
pub(crate) fn normalisation(
    tensors: &mut Tensors,
    from: Normalisation,
    to: Normalisation,
) -> Result<()> {
    const WEIGHT: &str = "patch_embed.proj.weight";
    const BIAS: &str = "patch_embed.proj.bias";
    let (Some(weight), Some(bias)) = (tensors.get(WEIGHT), tensors.get(BIAS)) else {
        return Ok(());
    };
    let shape = weight.dims().to_vec();
    let outputs = bias.elem_count();
    let mut weight = values(weight)?;
    let mut bias = values(bias)?;
    let of_output = weight.len() / outputs;
    for (weight, bias) in weight.chunks_exact_mut(of_output).zip(&mut bias) {
        for (channel, weight) in weight.chunks_exact_mut(of_output / 3).enumerate() {
            let scale = to.std[channel] / from.std[channel];
            let shift = (to.mean[channel] - from.mean[channel]) / from.std[channel];
            *bias += shift * weight.iter().sum::<f64>();
            weight.iter_mut().for_each(|weight| *weight *= scale);
        }
    }
    tensors.insert(WEIGHT.to_owned(), rounded(&weight, &shape)?);
    tensors.insert(BIAS.to_owned(), rounded(&bias, &[outputs])?);
    Ok(())
}

/// Converts predictions `p` to `scale * p + shift`, in the decoder's last layer.
pub(crate) fn predictions(tensors: &mut Tensors, scale: f64, shift: f64) -> Result<()> {
    for (name, shift) in [("decoder_pred.weight", 0.0), ("decoder_pred.bias", shift)] {
        if let Some(tensor) = tensors.get(name) {
            let shape = tensor.dims().to_vec();
            let values = values(tensor)?;
            let values: Vec<f64> = values.iter().map(|value| scale * value + shift).collect();
            tensors.insert(name.to_owned(), rounded(&values, &shape)?);
        }
    }
    Ok(())
}

/// Moves the bias of `decoder_embed` into that of the normalisation before it, for formats without
/// this bias: adds the `d` of least norm with `weight d = bias`. Returns the greatest absolute
/// value added; `None` if there is no such `d`, because the decoder is wider than the encoder or
/// the weight's rows are linearly dependent.
pub(crate) fn decoder_bias(tensors: &mut Tensors) -> Result<Option<f64>> {
    const WEIGHT: &str = "decoder_embed.weight";
    const BIAS: &str = "decoder_embed.bias";
    const NORM: &str = "norm.bias";
    let (Some(weight), Some(bias), Some(norm)) =
        (tensors.get(WEIGHT), tensors.get(BIAS), tensors.get(NORM))
    else {
        return Ok(Some(0.0));
    };
    let (rows, columns) = weight.dims2()?;
    let weight = values(weight)?;
    let bias = values(bias)?;
    let mut norm = values(norm)?;
    if bias.iter().all(|&value| value == 0.0) {
        return Ok(Some(0.0));
    }
    let row = |at: usize| &weight[at * columns..][..columns];
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    // weight weight^T = L L^T (Cholesky); the lower half only.
    let mut factor = vec![0.0; rows * rows];
    for i in 0..rows {
        for j in 0..=i {
            let rest =
                dot(row(i), row(j)) - dot(&factor[i * rows..][..j], &factor[j * rows..][..j]);
            if i != j {
                factor[i * rows + j] = rest / factor[j * rows + j];
            } else if rest > RANK_TOLERANCE * dot(row(i), row(i)) {
                factor[i * rows + i] = rest.sqrt();
            } else {
                return Ok(None);
            }
        }
    }
    let mut solution = bias;
    for i in 0..rows {
        solution[i] =
            (solution[i] - dot(&factor[i * rows..][..i], &solution[..i])) / factor[i * rows + i];
    }
    for i in (0..rows).rev() {
        let known: f64 = (i + 1..rows)
            .map(|j| factor[j * rows + i] * solution[j])
            .sum();
        solution[i] = (solution[i] - known) / factor[i * rows + i];
    }
    let mut greatest = 0f64;
    for (at, norm) in norm.iter_mut().enumerate() {
        let added: f64 = solution
            .iter()
            .enumerate()
            .map(|(i, value)| value * weight[i * columns + at])
            .sum();
        greatest = greatest.max(added.abs());
        *norm += added;
    }
    tensors.insert(NORM.to_owned(), rounded(&norm, &[columns])?);
    tensors.insert(
        BIAS.to_owned(),
        Tensor::zeros(rows, DType::F32, &Device::Cpu)?,
    );
    Ok(Some(greatest))
}

/// A row counts as linearly dependent if the squared norm of its part outside the span of the
/// others is below this share of its own.
const RANK_TOLERANCE: f64 = 1e-8;

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1()
}

fn rounded(values: &[f64], shape: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(
        values
            .iter()
            .map(|&value| value as f32)
            .collect::<Vec<f32>>(),
        shape,
        &Device::Cpu,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: usize, count: usize) -> Vec<f32> {
        // Squares, so that rows are linearly independent.
        (0..count)
            .map(|at| ((at * at * 31 + at * 7919 + seed * 104_729) % 1013) as f32 / 1013.0 - 0.5)
            .collect()
    }

    fn tensor(seed: usize, shape: &[usize]) -> Tensor {
        Tensor::from_vec(noise(seed, shape.iter().product()), shape, &Device::Cpu)
            .expect("a tensor")
    }

    fn greatest_difference(a: &Tensor, b: &Tensor) -> f32 {
        (a - b)
            .and_then(|off| off.abs()?.flatten_all()?.max(0)?.to_scalar())
            .expect("a number")
    }

    #[test]
    fn another_normalisation_of_pixels_gives_the_same_tokens_and_back() {
        let shape = [4, 3, 2, 2, 2];
        let before: Tensors = [
            ("patch_embed.proj.weight".to_owned(), tensor(1, &shape)),
            ("patch_embed.proj.bias".to_owned(), tensor(2, &[4])),
        ]
        .into();
        let mut after = before.clone();
        normalisation(&mut after, Normalisation::IMAGENET, Normalisation::OURS).expect("folded");
        let token = |tensors: &Tensors, by: Normalisation| {
            let pixels: Vec<f32> = noise(3, 24).into_iter().map(|value| value + 0.5).collect();
            let normalised = pixels
                .iter()
                .enumerate()
                .map(|(at, &x)| ((f64::from(x) - by.mean[at / 8]) / by.std[at / 8]) as f32);
            let pixels = Tensor::from_vec(normalised.collect::<Vec<_>>(), (24, 1), &Device::Cpu)
                .expect("pixels");
            let weight = tensors["patch_embed.proj.weight"]
                .reshape((4, 24))
                .expect("a matrix");
            weight
                .matmul(&pixels)
                .and_then(|out| out.squeeze(1)? + &tensors["patch_embed.proj.bias"])
                .expect("a token")
        };
        assert!(
            greatest_difference(
                &token(&before, Normalisation::IMAGENET),
                &token(&after, Normalisation::OURS)
            ) < 5e-6
        );
        assert!(
            greatest_difference(
                &before["patch_embed.proj.bias"],
                &after["patch_embed.proj.bias"]
            ) > 1e-3,
            "the bias has changed"
        );
        normalisation(&mut after, Normalisation::OURS, Normalisation::IMAGENET)
            .expect("folded back");
        for (name, value) in &before {
            assert!(greatest_difference(value, &after[name]) < 1e-6, "{name}");
        }
    }

    #[test]
    fn a_bias_of_the_decoders_embedding_moves_before_it() {
        let tensors = |rows: usize, columns: usize| -> Tensors {
            [
                (
                    "decoder_embed.weight".to_owned(),
                    tensor(1, &[rows, columns]),
                ),
                ("decoder_embed.bias".to_owned(), tensor(2, &[rows])),
                ("norm.bias".to_owned(), tensor(3, &[columns])),
            ]
            .into()
        };
        let embedded = |tensors: &Tensors| {
            let x = (tensor(4, &[12]) + &tensors["norm.bias"])
                .and_then(|x| x.reshape((12, 1)))
                .expect("a token");
            tensors["decoder_embed.weight"]
                .matmul(&x)
                .and_then(|out| out.squeeze(1)? + &tensors["decoder_embed.bias"])
                .expect("embedded")
        };
        let before = tensors(7, 12);
        let mut after = tensors(7, 12);
        assert!(
            decoder_bias(&mut after)
                .expect("computed")
                .expect("a solution")
                > 0.01
        );
        assert!(
            after["decoder_embed.bias"]
                .to_vec1::<f32>()
                .expect("values")
                .iter()
                .all(|&value| value == 0.0)
        );
        assert!(greatest_difference(&embedded(&before), &embedded(&after)) < 2e-6);
        // Without a bias there is nothing to move, whatever the shape; with more rows than columns
        // it cannot be moved.
        assert_eq!(decoder_bias(&mut after).expect("computed"), Some(0.0));
        let mut wide = tensors(13, 12);
        assert_eq!(decoder_bias(&mut wide).expect("computed"), None);
        assert_eq!(
            greatest_difference(&wide["norm.bias"], &tensors(13, 12)["norm.bias"]),
            0.0,
            "nothing has changed"
        );
    }
}
