//! Greedy decoding as a trial's steps do it: one token at a time through body and head, of whose logits the two largest are
//! asked for.

use lm_headroom::model::{Body, Parent, Projection, Step};

/// `count` tokens after `token`, whose position follows `parent`.
pub(crate) fn decode(
    body: &mut impl Body,
    head: &mut impl Projection,
    mut token: u32,
    mut parent: Parent,
    count: usize,
) -> Vec<u32> {
    let mut tokens = Vec::with_capacity(count);
    for _ in 0..count {
        let extension =
            body.extend(&[Step { token, parent, hidden: true, embedding: None, row: None }]).expect("a step");
        let tops = head.tops(&[(0, &extension.hidden)]).expect("logits");
        token = tops[0].expect("finite logits").token as u32;
        parent = Parent::Slot(extension.slots[0]);
        tokens.push(token);
    }
    tokens
}
