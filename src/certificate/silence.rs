//! Flips that keep an answer from ending.
//!
//! How few flips keep every eos from being the top token at any of the first `N` steps? An edit that does so leads the
//! answer away from the clean one, and what follows there is not linear in the flips any more, so the count is bounded
//! from both sides.
//!
//! *From below.* The clean answer ends in an eos at step `e`. Let `F` keep every eos from the top. If no token up to `e`
//! were another, the eos would still come; so there is a first position whose token is another, reached over the clean
//! prefix, and what wins there is no eos. `F` is then at least the position's least flips over the rivals that are no
//! eos, and so at least the least of these over all positions.
//!
//! *From above.* The bound is the smallest edit that was run and did it. Such edits are the witnesses of the bound from
//! below, the single flips with the most slack, and an edit that is made step by step: each time an eos still comes it
//! gains the fewest flips that help, computed on the edited head at the very prefix where the eos came, and at the end
//! flips that are not needed are taken out again.

use super::{
    CertificateError,
    data::Silence,
    ground::{Ground, Stage, Watch, logits, run},
    least_flips::{all_least_flips, least_flips},
    position::{Flip, Position},
    rows,
};
use crate::{
    edit::Edit,
    head::Head,
    model::{AnyBody, Projection},
    search::RunError,
    trial::{Event, Finish, Trials},
};

/// Single flips of each position that are tried.
const SINGLE: usize = 24;
/// Rounds of the search from above.
const ROUNDS: usize = 24;

pub(super) fn silence_eos(
    ground: &Ground<'_, '_>,
    trials: &mut Trials<'_, AnyBody>,
    head: &mut impl Projection,
    watch: Watch<'_>,
) -> Result<Silence, CertificateError> {
    let steps = ground.max_tokens;
    if ground.clean.finish != Finish::Stop {
        let none = Some(0);
        let text = Some(ground.subject.decode(&ground.clean.tokens).map_err(RunError::from)?);
        let witness = Some(Edit::clean().to_string());
        return Ok(Silence {
            steps,
            at_least: none,
            executed_at_least: none,
            at_most: none,
            exact: true,
            witness,
            text,
        });
    }
    let eos = ground.subject.eos();
    let least = all_least_flips(ground.positions, eos, ground.subject.team());
    let at_least = least.iter().flatten().map(|least| least.flips).min();
    let executed_at_least = least.iter().flatten().map(|least| least.executed_at_least).min();
    watch(Stage::Running)?;

    let mut tried: Vec<Vec<Flip>> =
        least.iter().flatten().filter(|least| least.flips > 0).map(|least| least.witness.clone()).collect();
    for census in ground.censuses {
        let mut single: Vec<_> = census.critical().filter(|hit| !eos.contains(&hit.flip.row)).collect();
        single.sort_by(|a, b| b.slack.total_cmp(&a.slack).then(a.flip.cmp(&b.flip)));
        tried.extend(single.iter().take(SINGLE).map(|hit| vec![hit.flip]));
        // Lowering the eos itself.
        let lowering = census.critical().filter(|hit| eos.contains(&hit.flip.row));
        tried.extend(lowering.take(SINGLE).map(|hit| vec![hit.flip]));
    }
    let edits: Vec<Edit> = tried.iter().map(|flips| Flip::edit(flips)).collect();
    let ran = run(ground, trials, head, &edits, watch)?;
    let silent = tried.into_iter().zip(&ran).filter(|(_, ran)| ran.finish == Finish::Length);
    let mut best = silent.map(|(flips, ran)| (flips, ran.text.clone())).min_by_key(|(flips, _)| flips.len());
    if best.is_none() || best.as_ref().map(|(flips, _)| flips.len()) > at_least {
        let limit = best.as_ref().map_or(usize::MAX, |(flips, _)| flips.len());
        if let Some(better) = step_by_step(ground, trials, head, limit, watch)? {
            best = Some(better);
        }
    }
    let at_most = best.as_ref().map(|(flips, _)| flips.len());
    let (witness, text) = best.map(|(flips, text)| (Flip::edit(&flips).to_string(), text)).unzip();
    Ok(Silence { steps, at_least, executed_at_least, at_most, exact: at_least == at_most, witness, text })
}

/// Adds the fewest flips each time an eos still comes; fewer than `limit` in all, or nothing.
fn step_by_step(
    ground: &Ground<'_, '_>,
    trials: &mut Trials<'_, AnyBody>,
    projection: &mut impl Projection,
    limit: usize,
    watch: Watch<'_>,
) -> Result<Option<(Vec<Flip>, String)>, CertificateError> {
    let subject = ground.subject;
    let mut head = Head::private(subject.head(), subject.team().clone()).map_err(RunError::from)?;
    let mut flips: Vec<Flip> = Vec::new();
    for _ in 0..ROUNDS {
        let ran = run(ground, trials, projection, &[Flip::edit(&flips)], watch)?.remove(0);
        match ran.finish {
            Finish::Length => return thinned(ground, trials, projection, flips, ran.text, watch).map(Some),
            Finish::Nonfinite => return Ok(None),
            Finish::Stop => {}
        }
        // The hidden state of the prefix where the eos came: the body's, which no edit of the head reaches.
        let ids = [ground.prompt.ids.as_slice(), &ran.tokens].concat();
        let mut prefix = subject.trials(std::iter::once(ids.as_slice()), 1);
        prefix.run(projection, &[], |_: Event| watch(Stage::Running))?;
        let hidden: Vec<Vec<f32>> = prefix.clean_hidden(0).map(<[f32]>::to_vec).collect();
        let Some(hidden) = hidden.first() else { return Ok(None) };

        let applied = head.apply(&Flip::edit(&flips)).map_err(RunError::from)?;
        let rows = rows(subject, applied.view(), ground.rounding);
        let executed = logits(&mut subject.projection(applied.view()), std::slice::from_ref(hidden))?;
        let position = Position::new(&rows, hidden, &executed)?;
        let Some(more) = least_flips(&position, subject.eos()).filter(|more| more.flips > 0) else { return Ok(None) };
        // A flip of the same bit would take an earlier one back; both are gone then.
        for flip in more.witness {
            match flips.iter().position(|known| *known == flip) {
                Some(known) => drop(flips.remove(known)),
                None => flips.push(flip),
            }
        }
        if flips.len() >= limit {
            return Ok(None);
        }
    }
    Ok(None)
}

/// Takes out flips, one after the other, without which no eos comes either.
fn thinned(
    ground: &Ground<'_, '_>,
    trials: &mut Trials<'_, AnyBody>,
    head: &mut impl Projection,
    mut flips: Vec<Flip>,
    mut text: String,
    watch: Watch<'_>,
) -> Result<(Vec<Flip>, String), CertificateError> {
    let mut i = 0;
    while i < flips.len() && flips.len() > 1 {
        let mut fewer = flips.clone();
        fewer.remove(i);
        let ran = run(ground, trials, head, &[Flip::edit(&fewer)], watch)?.remove(0);
        if ran.finish == Finish::Length {
            (flips, text) = (fewer, ran.text);
        } else {
            i += 1;
        }
    }
    Ok((flips, text))
}
