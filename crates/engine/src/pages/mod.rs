//! Who has which page of the KV cache.

mod tree;

use redline_model::{PAGE_POSITIONS, PageId, TokenId, pages_for};

use tree::{NodeId, Part, PrefixTree};

/// Contents to be copied from one page to another before the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageCopy {
    /// Where from.
    pub from: PageId,
    /// Where to.
    pub to: PageId,
}

/// There is no page left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutOfPages;

/// A sequence's pages.
///
/// The first `shared` are nodes of the tree, full, and never written again; the others are its own.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pages: Vec<PageId>,
    shared: usize,
    /// Node of the last shared page.
    node: Option<NodeId>,
    /// Own pages before this one were given back: no layer looks at them any more.
    dropped: usize,
}

impl Table {
    /// In order of positions.
    pub(crate) fn pages(&self) -> &[PageId] {
        &self.pages
    }

    /// Positions there is room for.
    pub(crate) fn positions(&self) -> usize {
        self.pages.len() * PAGE_POSITIONS
    }

    /// The pages only it has.
    fn own(&self) -> &[PageId] {
        &self.pages[self.dropped.max(self.shared)..]
    }
}

/// A table to begin with.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) table: Table,
    /// Positions it holds already.
    pub(crate) computed: usize,
    /// What must be copied before that is true.
    pub(crate) copy: Option<PageCopy>,
}

/// All pages: free, in the tree, or in a sequence's table.
#[derive(Debug)]
pub(crate) struct Pages {
    free: Vec<PageId>,
    tree: PrefixTree,
    total: usize,
    /// Whether prefixes are kept when nobody uses them.
    cache: bool,
}

impl Pages {
    /// `total` free pages.
    pub(crate) fn new(total: usize, cache: bool) -> Self {
        Self {
            // The lowest first: those never touched take no memory.
            free: (0..total as u32).rev().map(PageId).collect(),
            tree: PrefixTree::default(),
            total,
            cache,
        }
    }

    /// Pages that can be had: free ones, and those kept for a prefix that may come again.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.tree.idle()
    }

    /// Pages that running sequences have.
    pub(crate) fn in_use(&self) -> usize {
        self.total - self.available()
    }

    /// Pages kept for prefixes, used or not.
    pub(crate) fn cached(&self) -> usize {
        self.tree.len()
    }

    fn take(&mut self) -> Result<PageId, OutOfPages> {
        (self.free.pop())
            .or_else(|| self.tree.evict())
            .ok_or(OutOfPages)
    }

    /// A table with room for `tokens`, and with all that is known of them if `reuse`; `None` if fewer
    /// than `spare` pages were left then.
    pub(crate) fn adopt(&mut self, tokens: &[TokenId], reuse: bool, spare: usize) -> Option<Start> {
        let known = match reuse && self.cache {
            // Never all of them: the last token must run for its logits.
            true => &tokens[..tokens.len() - 1],
            false => &[],
        };
        let found = self.tree.find(known);
        let table = Table {
            shared: found.pages.len(),
            pages: found.pages,
            node: found.node,
            dropped: 0,
        };
        self.start(table, found.part, tokens, spare)
    }

    /// Positions that [`Self::adopt`] would find of `tokens`.
    pub(crate) fn known(&self, tokens: &[TokenId]) -> usize {
        let found = self.tree.find(&tokens[..tokens.len() - 1]);
        let part = found.part.map_or(0, |part| part.positions);
        found.pages.len() * PAGE_POSITIONS + part
    }

    /// As [`Self::adopt`], for tokens that the sequence of another table has computed. Without that
    /// sequence's first pages, which a window may have passed, as any other.
    pub(crate) fn fork(&mut self, of: &Table, tokens: &[TokenId], spare: usize) -> Option<Start> {
        let known = tokens.len() - 1;
        let (full, rest) = (known / PAGE_POSITIONS, known % PAGE_POSITIONS);
        if of.dropped > 0 || full > of.shared {
            return self.adopt(tokens, true, spare);
        }
        let table = Table {
            pages: of.pages[..full].to_vec(),
            shared: full,
            node: self.tree.ancestor(of.node, of.shared - full),
            dropped: 0,
        };
        let part = (rest > 0).then(|| Part {
            node: None,
            page: of.pages[full],
            positions: rest,
        });
        self.start(table, part, tokens, spare)
    }

    /// Holds a table's shared pages, copies `part` of the next if there is a page to copy it to, and
    /// makes room for `tokens`.
    fn start(
        &mut self,
        mut table: Table,
        part: Option<Part>,
        tokens: &[TokenId],
        spare: usize,
    ) -> Option<Start> {
        self.hold(table.node);
        let missing = pages_for(tokens.len() + 1) - table.shared;
        if missing + spare > self.available() {
            self.release(table.node);
            return None;
        }
        let mut computed = table.positions();
        let mut copy = None;
        if let Some(Part {
            node,
            page: from,
            positions,
        }) = part
        {
            self.hold(node);
            if let Ok(to) = self.take() {
                table.pages.push(to);
                computed += positions;
                copy = Some(PageCopy { from, to });
            }
            self.release(node);
        }
        let grown = self.grow(&mut table, tokens.len());
        assert_eq!(grown, Ok(()), "there were enough");
        Some(Start {
            table,
            computed,
            copy,
        })
    }

    fn hold(&mut self, node: Option<NodeId>) {
        if let Some(node) = node {
            self.tree.hold(node);
        }
    }

    fn release(&mut self, node: Option<NodeId>) {
        if let Some(node) = node {
            self.tree.release(node);
        }
    }

    /// Makes room for `positions`.
    ///
    /// # Errors
    /// If there are too few pages; the table keeps those it got.
    pub(crate) fn grow(&mut self, table: &mut Table, positions: usize) -> Result<(), OutOfPages> {
        while table.pages.len() < pages_for(positions) {
            let page = self.take()?;
            table.pages.push(page);
        }
        Ok(())
    }

    /// Enters what is full of a table into the tree; `computed` are the tokens whose keys and values
    /// the table holds, from the start.
    pub(crate) fn share(&mut self, table: &mut Table, computed: &[TokenId]) {
        if table.dropped > 0 {
            return;
        }
        while (table.shared + 1) * PAGE_POSITIONS <= computed.len() {
            let start = table.shared * PAGE_POSITIONS;
            let tokens = &computed[start..start + PAGE_POSITIONS];
            self.share_next(table, tokens);
        }
    }

    /// Enters the first own page of a table, which holds `tokens`.
    fn share_next(&mut self, table: &mut Table, tokens: &[TokenId]) {
        let page = table.pages[table.shared];
        let (node, duplicate) = self.tree.insert(table.node, tokens, page);
        self.tree.hold(node);
        let before = table.node.replace(node);
        self.release(before);
        if let Some(page) = duplicate {
            // Another sequence computed the same: the same bits, so one of them is enough.
            table.pages[table.shared] = self.tree.page(node);
            self.free.push(page);
        }
        table.shared += 1;
    }

    /// Gives back the own pages in which no position from `position` on lies.
    pub(crate) fn drop_before(&mut self, table: &mut Table, position: usize) {
        let end = (position / PAGE_POSITIONS).min(table.pages.len().saturating_sub(1));
        let start = table.dropped.max(table.shared);
        if start < end {
            self.free.extend_from_slice(&table.pages[start..end]);
            // Never looked at again; a table has a page in every place.
            let kept = table.pages.last().copied();
            table.pages[start..end].fill(kept.expect("there is one"));
            table.dropped = end;
        }
    }

    /// Takes all pages of a sequence back; what they hold of `computed` is kept while there is room.
    pub(crate) fn give_back(&mut self, mut table: Table, computed: &[TokenId]) {
        self.share(&mut table, computed);
        let rest = &computed[computed.len().min(table.shared * PAGE_POSITIONS)..];
        if self.cache && table.dropped == 0 && !rest.is_empty() {
            self.share_next(&mut table, rest);
        }
        self.free.extend_from_slice(table.own());
        self.release(table.node);
        if !self.cache {
            self.clear();
        }
    }

    /// Forgets every prefix that nobody uses.
    pub(crate) fn clear(&mut self) {
        while let Some(page) = self.tree.evict() {
            self.free.push(page);
        }
    }
}
