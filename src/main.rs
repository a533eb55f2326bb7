//! Arguments -> daemon or a verb -> exit code.

fn main() {}
