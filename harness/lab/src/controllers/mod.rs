//! Controllers that only list, watch and apply, as anyone's would.
