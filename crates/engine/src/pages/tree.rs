//! Pages whose contents are known, found by the tokens they were computed from.
//!
//! A node is one page and the tokens in it; the path to it is everything before. What a page holds
//! is decided by that path alone, bit for bit, so sequences share it. Nodes are compared by their
//! tokens, never by a hash: a wrong hit would be a wrong answer.

use std::collections::{BTreeMap, BTreeSet};

use redline_model::{PAGE_POSITIONS, PageId, TokenId};

/// Number of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId(u32);

/// What a node is found by: the node before it, and its own tokens.
type Key = (Option<NodeId>, Box<[TokenId]>);

#[derive(Debug)]
struct Node {
    key: Key,
    page: PageId,
    /// Sequences that end their shared part here.
    users: u32,
    children: u32,
    /// Users, and children that are busy themselves.
    busy: u32,
    last_used: u64,
}

/// The start that a sequence has in common with the tree.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Match {
    /// Node of the last full page, whole in common.
    pub(crate) node: Option<NodeId>,
    /// Full pages in common.
    pub(crate) pages: Vec<PageId>,
    /// The first positions of the page after them.
    pub(crate) part: Option<Part>,
}

/// The first positions of a page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Its node, if it is one.
    pub(crate) node: Option<NodeId>,
    pub(crate) page: PageId,
    pub(crate) positions: usize,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct PrefixTree {
    nodes: Vec<Option<Node>>,
    /// Empty places in `nodes`.
    vacant: Vec<NodeId>,
    /// In the order of tokens, so that neighbours have the longest starts in common.
    index: BTreeMap<Key, NodeId>,
    /// Nodes that may go, by when they were last used: nobody uses them, none follows them.
    leaves: BTreeSet<(u64, NodeId)>,
    /// Nodes that could go in time: neither they nor any that follow them are used.
    idle: usize,
    ticks: u64,
}

impl PrefixTree {
    /// Pages that [`Self::evict`] could give, one call after another.
    pub(crate) const fn idle(&self) -> usize {
        self.idle
    }

    /// Nodes there are.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// The longest start of `tokens` there is.
    pub(crate) fn find(&self, tokens: &[TokenId]) -> Match {
        let mut found = Match::default();
        let mut rest = tokens;
        while !rest.is_empty() {
            let wanted = &rest[..rest.len().min(PAGE_POSITIONS)];
            let Some((node, common)) = self.closest_child(found.node, wanted) else {
                break;
            };
            let page = self.node(node).page;
            if common < PAGE_POSITIONS {
                found.part = Some(Part {
                    node: Some(node),
                    page,
                    positions: common,
                });
                break;
            }
            found.node = Some(node);
            found.pages.push(page);
            rest = &rest[PAGE_POSITIONS..];
        }
        found
    }

    /// The child of `parent` with the longest start in common with `wanted`, and its length.
    fn closest_child(&self, parent: Option<NodeId>, wanted: &[TokenId]) -> Option<(NodeId, usize)> {
        let key = (parent, Box::from(wanted));
        let before = self.index.range(..&key).next_back();
        let after = self.index.range(&key..).next();
        [before, after]
            .into_iter()
            .flatten()
            .filter(|((of, _), _)| *of == parent)
            .map(|((_, tokens), node)| (*node, common(tokens, wanted)))
            .filter(|(_, common)| *common > 0)
            .max_by_key(|(_, common)| *common)
    }

    /// Enters `page`, which holds `tokens` after `parent`; the caller owned it and does not any
    /// more. If such a node was there already, that one, and the page is given back.
    pub(crate) fn insert(
        &mut self,
        parent: Option<NodeId>,
        tokens: &[TokenId],
        page: PageId,
    ) -> (NodeId, Option<PageId>) {
        let key: Key = (parent, Box::from(tokens));
        if let Some(node) = self.index.get(&key) {
            return (*node, Some(page));
        }
        let node = self.vacant.pop().unwrap_or_else(|| {
            self.nodes.push(None);
            NodeId(self.nodes.len() as u32 - 1)
        });
        self.ticks += 1;
        self.index.insert(key.clone(), node);
        self.nodes[node.0 as usize] = Some(Node {
            key,
            page,
            users: 0,
            children: 0,
            busy: 0,
            last_used: self.ticks,
        });
        self.idle += 1;
        self.leaves.insert((self.ticks, node));
        if let Some(parent) = parent {
            self.forget_leaf(parent);
            self.node_mut(parent).children += 1;
        }
        (node, None)
    }

    /// Takes note of one more user of a node, and of all before it.
    pub(crate) fn hold(&mut self, node: NodeId) {
        self.forget_leaf(node);
        self.node_mut(node).users += 1;
        let mut next = Some(node);
        while let Some(node) = next {
            let entry = self.node_mut(node);
            entry.busy += 1;
            let (was_idle, parent) = (entry.busy == 1, entry.key.0);
            if !was_idle {
                break;
            }
            self.idle -= 1;
            next = parent;
        }
    }

    /// Ends a [`Self::hold`].
    pub(crate) fn release(&mut self, node: NodeId) {
        self.node_mut(node).users -= 1;
        let mut next = Some(node);
        while let Some(node) = next {
            self.ticks += 1;
            let tick = self.ticks;
            let entry = self.node_mut(node);
            entry.busy -= 1;
            if entry.busy > 0 {
                break;
            }
            entry.last_used = tick;
            let (is_leaf, parent) = (entry.children == 0, entry.key.0);
            self.idle += 1;
            if is_leaf {
                self.leaves.insert((tick, node));
            }
            next = parent;
        }
    }

    /// Removes the leaf that was not used for the longest time; its page is free.
    pub(crate) fn evict(&mut self) -> Option<PageId> {
        let (_, id) = self.leaves.pop_first()?;
        let node = self.nodes[id.0 as usize].take().expect("a leaf is a node");
        self.vacant.push(id);
        self.idle -= 1;
        self.index.remove(&node.key);
        if let Some(parent) = node.key.0 {
            let entry = self.node_mut(parent);
            entry.children -= 1;
            if entry.children == 0 && entry.busy == 0 {
                let last_used = entry.last_used;
                self.leaves.insert((last_used, parent));
            }
        }
        Some(node.page)
    }

    /// The node so many pages before another.
    pub(crate) fn ancestor(&self, node: Option<NodeId>, pages: usize) -> Option<NodeId> {
        (0..pages).fold(node, |node, _| self.node(node?).key.0)
    }

    fn forget_leaf(&mut self, node: NodeId) {
        let last_used = self.node(node).last_used;
        self.leaves.remove(&(last_used, node));
    }

    fn node(&self, node: NodeId) -> &Node {
        self.nodes[node.0 as usize]
            .as_ref()
            .expect("who holds a node's number keeps it")
    }

    fn node_mut(&mut self, node: NodeId) -> &mut Node {
        self.nodes[node.0 as usize]
            .as_mut()
            .expect("who holds a node's number keeps it")
    }

    /// The page of a node.
    pub(crate) fn page(&self, node: NodeId) -> PageId {
        self.node(node).page
    }
}

/// Length of the start that two have in common.
fn common(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
