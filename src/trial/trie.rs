//! The token prefixes that are known.

use std::collections::HashMap;

use crate::model::{Body, Slot};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NodeId(u32);

/// A token prefix.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) parent: Option<NodeId>,
    pub(super) token: u32,
    /// `None` for a root, and before the body has seen it.
    pub(super) slot: Option<Slot>,
    pub(super) hidden: Option<Box<[f32]>>,
    /// Prompts and clean answers stay until the end.
    pub(super) pinned: bool,
}

/// The prefixes that are known.
#[derive(Debug, Default)]
pub(super) struct Trie {
    nodes: Vec<Option<Node>>,
    free: Vec<NodeId>,
    pub(super) children: HashMap<(NodeId, u32), NodeId>,
}

impl Trie {
    pub(super) fn insert(&mut self, node: Node) -> NodeId {
        if let Some(id) = self.free.pop() {
            self.nodes[id.0 as usize] = Some(node);
            return id;
        }
        self.nodes.push(Some(node));
        NodeId(self.nodes.len() as u32 - 1)
    }

    /// A new root, of prompts of so many tokens where their length makes a difference, else of 0. It stands in the place of a token.
    pub(super) fn root(&mut self, prompt: usize) -> NodeId {
        self.insert(Node { parent: None, token: prompt as u32, slot: None, hidden: None, pinned: false })
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        self.nodes[id.0 as usize].as_ref().expect("a prefix in use is not forgotten")
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes[id.0 as usize].as_mut().expect("a prefix in use is not forgotten")
    }

    pub(super) fn hidden(&self, id: NodeId) -> &[f32] {
        self.node(id).hidden.as_deref().expect("a prefix at which logits are asked for has its hidden state")
    }

    /// Forgets all that is not pinned.
    pub(super) fn sweep(&mut self, body: &mut impl Body) {
        for index in 0..self.nodes.len() {
            if let Some(node) = self.nodes[index].take_if(|node| !node.pinned) {
                if let Some(parent) = node.parent {
                    let key = (parent, node.token);
                    if self.children.get(&key) == Some(&NodeId(index as u32)) {
                        self.children.remove(&key);
                    }
                }
                if let Some(slot) = node.slot {
                    body.release(slot);
                }
                self.free.push(NodeId(index as u32));
            }
        }
    }
}
