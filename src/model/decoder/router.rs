//! Which experts a position has.

use crate::{
    checkpoint::{
        ExpertsWeights,
        architecture::{Divisor, Groups, Router, Score},
    },
    kernels::Kernel,
};

/// An expert of a position, and what its output is multiplied by.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Choice {
    pub expert: usize,
    pub weight: f32,
}

/// Chooses as many experts as there is room for in `chosen`, from the greatest score to the least, by the products of one position with
/// the router's rows. Nothing but these decides; of equal scores the first is chosen.
pub(super) fn choose(
    kernel: Kernel,
    router: &Router,
    weights: &ExpertsWeights,
    products: &mut [f32],
    chosen: &mut [Choice],
) {
    if let Score::Mixer { reach } = router.score {
        mix(kernel, products, reach, chosen);
    } else {
        let scores = products;
        match router.score {
            Score::Softmax => kernel.softmax(scores),
            Score::Sigmoid => kernel.sigmoid(scores),
            Score::SoftmaxOfChosen | Score::Mixer { .. } => {}
        }
        let mut keys = scores.to_vec();
        if let Some(bias) = &weights.choice_bias {
            kernel.add(&mut keys, &bias.values);
        }
        if let Some(groups) = router.groups {
            leave_out(groups, &mut keys);
        }
        for rank in 0..chosen.len() {
            let expert = first_best(&keys, |i| chosen[..rank].iter().all(|earlier| earlier.expert != i));
            chosen[rank] = Choice { expert, weight: scores[expert] };
        }
        if router.score == Score::SoftmaxOfChosen {
            let mut own: Vec<f32> = chosen.iter().map(|choice| choice.weight).collect();
            kernel.softmax(&mut own);
            for (choice, weight) in chosen.iter_mut().zip(own) {
                choice.weight = weight;
            }
        }
    }
    if let Some(divisor) = router.divisor {
        let sum: f32 = chosen.iter().map(|choice| choice.weight).sum();
        let divisor = match divisor {
            Divisor::Sum => sum,
            Divisor::SumAnd(more) => sum + more,
            Divisor::SumOrMore(least) => {
                if sum < least {
                    least
                } else {
                    sum
                }
            }
        };
        chosen.iter_mut().for_each(|choice| choice.weight /= divisor);
    }
    if let Some(scale) = router.scale {
        chosen.iter_mut().for_each(|choice| choice.weight *= scale);
    }
    if let Some(scales) = &weights.expert_scale {
        chosen.iter_mut().for_each(|choice| choice.weight *= scales.values[choice.expert]);
    }
}

/// The first of the greatest of those that are `open`. A NaN is less than any number.
fn first_best(scores: &[f32], open: impl Fn(usize) -> bool) -> usize {
    let mut best: Option<usize> = None;
    for (i, &score) in scores.iter().enumerate() {
        let better = best.is_none_or(|best| score > scores[best] || scores[best].is_nan() && !score.is_nan());
        if better && open(i) {
            best = Some(i);
        }
    }
    best.expect("as many experts as are chosen")
}

/// Sets all scores of groups that are not kept to 0, as mlx-lm does.
fn leave_out(Groups { count, kept }: Groups, scores: &mut [f32]) {
    let size = scores.len() / count;
    let best_two = |group: &[f32]| {
        let first = first_best(group, |_| true);
        let second = first_best(group, |i| i != first);
        group[first] + group[second]
    };
    let of_groups: Vec<f32> = scores.chunks_exact(size).map(best_two).collect();
    let mut is_kept = vec![false; count];
    for _ in 0..kept {
        let group = first_best(&of_groups, |i| !is_kept[i]);
        is_kept[group] = true;
    }
    for (group, _) in scores.chunks_exact_mut(size).zip(is_kept).filter(|(_, kept)| !kept) {
        group.fill(0.0);
    }
}

/// The sparse mixer; see [`Score::Mixer`].
fn mix(kernel: Kernel, products: &[f32], reach: f32, chosen: &mut [Choice]) {
    for rank in 0..chosen.len() {
        let left = |i: usize| chosen[..rank].iter().all(|earlier| earlier.expert != i);
        let expert = first_best(products, left);
        let best = products[expert];
        let near = |&(i, product): &(usize, &f32)| {
            let magnitude = product.abs();
            let out = (best - product) / if magnitude > best { magnitude } else { best } > reach;
            left(i) && !out
        };
        // The chosen one is the first of equals, and so the first with this value.
        let mut within: Vec<f32> = vec![best];
        within.extend(
            products.iter().enumerate().filter(near).filter(|&(i, _)| i != expert).map(|(_, &product)| product),
        );
        kernel.softmax(&mut within);
        chosen[rank] = Choice { expert, weight: within[0] };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkpoint::{ExpertLinear, Linear, Vector, weights::Weights},
        quant::{Dense, FloatType},
    };

    /// A router of which only the numbers of experts matter.
    fn weights(choice_bias: Option<Vec<f32>>, expert_scale: Option<Vec<f32>>) -> ExpertsWeights {
        let linear = || {
            let data = crate::checkpoint::Bytes::new(vec![0; 4]);
            let weights = Weights::Dense(Dense::new(1, 1, FloatType::F32, data).expect("one number"));
            Linear { weights, bias: None }
        };
        let vector = |values| Vector { values, float_type: FloatType::F32 };
        ExpertsWeights {
            router: linear(),
            choice_bias: choice_bias.map(vector),
            expert_scale: expert_scale.map(vector),
            gate_proj: ExpertLinear::Stacked(linear()),
            up_proj: ExpertLinear::Stacked(linear()),
            down_proj: ExpertLinear::Stacked(linear()),
            shared: None,
            norms: None,
        }
    }

    fn plain(chosen: usize, score: Score) -> Router {
        Router {
            chosen,
            bias: false,
            score,
            choice_bias: false,
            groups: None,
            divisor: None,
            scale: None,
            expert_scale: false,
        }
    }

    fn chosen(router: &Router, weights: &ExpertsWeights, products: &[f32]) -> Vec<(usize, f32)> {
        let found: Vec<Vec<Choice>> = Kernel::available()
            .into_iter()
            .map(|kernel| {
                let mut chosen = vec![Choice::default(); router.chosen];
                choose(kernel, router, weights, &mut products.to_vec(), &mut chosen);
                chosen
            })
            .collect();
        let bits = |all: &[Choice]| all.iter().map(|one| (one.expert, one.weight.to_bits())).collect::<Vec<_>>();
        assert!(found.iter().all(|other| bits(other) == bits(&found[0])), "{found:?}");
        found[0].iter().map(|choice| (choice.expert, choice.weight)).collect()
    }

    fn near(found: &[(usize, f32)], expected: &[(usize, f64)]) {
        let agree = found.len() == expected.len()
            && found.iter().zip(expected).all(|(f, e)| f.0 == e.0 && (f64::from(f.1) - e.1).abs() < 1e-6);
        assert!(agree, "{found:?} {expected:?}");
    }

    const PRODUCTS: [f32; 6] = [0.5, 2.0, -1.0, 2.0, 1.5, -3.0];

    fn exp(i: usize) -> f64 {
        libm::exp(f64::from(PRODUCTS[i]))
    }

    #[test]
    fn scores_are_those_of_their_definitions_and_of_equal_ones_the_first_is_chosen() {
        let none = weights(None, None);
        let all: f64 = (0..6).map(exp).sum();
        let three = exp(1) + exp(3) + exp(4);
        let sigmoid = |i| exp(i) / (1.0 + exp(i));
        let route = |score| chosen(&plain(3, score), &none, &PRODUCTS);
        near(&route(Score::SoftmaxOfChosen), &[1, 3, 4].map(|i| (i, exp(i) / three)));
        near(&route(Score::Softmax), &[1, 3, 4].map(|i| (i, exp(i) / all)));
        near(&route(Score::Sigmoid), &[1, 3, 4].map(|i| (i, sigmoid(i))));
        // All of them, one, and products that are no numbers.
        assert_eq!(
            chosen(&plain(6, Score::Sigmoid), &none, &PRODUCTS).iter().map(|one| one.0).collect::<Vec<_>>(),
            [1, 3, 4, 0, 2, 5]
        );
        near(&chosen(&plain(1, Score::SoftmaxOfChosen), &none, &[-7.0]), &[(0, 1.0)]);
        let found = chosen(&plain(2, Score::Sigmoid), &none, &[f32::NAN, -9.0, f32::NAN, 1.0]);
        assert_eq!((found[0].0, found[1].0), (3, 1));
    }

    #[test]
    fn what_is_added_for_the_choice_changes_no_weight() {
        let router = Router { choice_bias: true, ..plain(2, Score::Sigmoid) };
        let sigmoid = |i| exp(i) / (1.0 + exp(i));
        let found = chosen(&router, &weights(Some(vec![0.0, 0.0, 1.0, 0.0, 0.0, 3.0]), None), &PRODUCTS);
        near(&found, &[5, 2].map(|i| (i, sigmoid(i))));
    }

    #[test]
    fn weights_are_divided_and_multiplied_in_turn() {
        let all: f64 = (0..6).map(exp).sum();
        let [first, third] = [1, 4].map(|i| exp(i) / all);
        let sum = 2.0 * first + third;
        let scales = weights(None, Some(vec![1.0, 2.0, 1.0, 3.0, 0.5, 1.0]));
        let router = |divisor, scale| Router { divisor, scale, expert_scale: true, ..plain(3, Score::Softmax) };
        for (divisor, by) in [
            (None, 1.0),
            (Some(Divisor::Sum), sum),
            (Some(Divisor::SumAnd(0.25)), sum + 0.25),
            (Some(Divisor::SumOrMore(0.25)), sum),
            (Some(Divisor::SumOrMore(4.0)), 4.0),
        ] {
            let found = chosen(&router(divisor, Some(1.5)), &scales, &PRODUCTS);
            near(&found, &[(1, first, 2.0), (3, first, 3.0), (4, third, 0.5)].map(|(i, w, s)| (i, w / by * 1.5 * s)));
        }
    }

    #[test]
    fn groups_that_are_not_kept_have_scores_of_zero() {
        let grouped =
            |kept, chosen| Router { groups: Some(Groups { count: 3, kept }), ..plain(chosen, Score::Sigmoid) };
        let found = |router: Router, bias| {
            let of = chosen(&router, &weights(Some(bias), None), &PRODUCTS);
            of.into_iter().map(|one| one.0).collect::<Vec<_>>()
        };
        // The sums of the best two are those of experts 0 and 1, 2 and 3, 4 and 5.
        assert_eq!(found(grouped(1, 2), vec![0.0; 6]), [1, 0]);
        assert_eq!(found(grouped(2, 3), vec![0.0; 6]), [1, 3, 0]);
        // A score below zero comes after those that were left out.
        assert_eq!(found(grouped(1, 2), vec![-9.0, 9.0, -9.0, -9.0, -9.0, -9.0]), [1, 2]);
    }

    #[test]
    fn the_mixer_weighs_each_expert_among_those_within_reach() {
        let mixed = |reach, products: &[f32]| chosen(&plain(2, Score::Mixer { reach }), &weights(None, None), products);
        let products = [1.0, 1.2, 0.9, -4.0];
        let part = |own: f64, others: &[f64]| {
            let all: f64 = others.iter().map(|&x| libm::exp(x)).sum();
            libm::exp(own) / (all + libm::exp(own))
        };
        // 1.0 is 0.2 / 1.2 below 1.2 and 0.9 is 0.3 / 1.2; 0.9 is 0.1 below 1.0.
        near(&mixed(0.2, &products), &[(1, part(1.2, &[1.0])), (0, part(1.0, &[0.9]))]);
        near(&mixed(0.01, &products), &[(1, 1.0), (0, 1.0)]);
        near(&mixed(10.0, &products), &[(1, part(1.2, &[1.0, 0.9, -4.0])), (0, part(1.0, &[0.9, -4.0]))]);
        // Where products are below zero, the magnitude of each decides.
        near(&mixed(0.2, &[-1.0, -1.1, -2.0]), &[(0, part(-1.0, &[-1.1])), (1, 1.0)]);
    }
}
