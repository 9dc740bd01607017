//! Placeholder for the bound on failed requests; follows with the split test.
