//! What a debugger's write to a segment register loads besides the selector (SDM volume 3 section 3.4.3, 3.4.5, 20.1.4).

use crate::cpu::{CpuState, Mode, Segment};

/// The attribute bit of a segment that cannot be used.
const UNUSABLE: u32 = 1 << 16;

/// Reads memory at a linear address; `false`: not there.
pub(super) type ReadLinear<'a> = &'a dyn Fn(u64, &mut [u8]) -> bool;

/// Loads segment register `index` as MOV would, without its checks. `false`: there is no such descriptor.
pub(super) fn load(state: &mut CpuState, index: usize, selector: u16, read: ReadLinear<'_>) -> bool {
    if state.segments[index].selector == selector {
        return true;
    }
    let segment = match state.mode() {
        Mode::Real | Mode::Virtual8086 => {
            let attributes = if state.mode() == Mode::Real { 0x93 } else { 0xf3 };
            Some(Segment { selector, base: u64::from(selector) << 4, limit: 0xffff, attributes })
        }
        _ if selector < 4 => Some(Segment { selector, base: 0, limit: 0, attributes: UNUSABLE }),
        _ => descriptor(state, selector, read),
    };
    let Some(segment) = segment else { return false };
    state.segments[index] = segment;
    true
}

fn descriptor(state: &CpuState, selector: u16, read: ReadLinear<'_>) -> Option<Segment> {
    let (base, limit) = match selector & 4 != 0 {
        true => (state.ldtr.base, state.ldtr.limit),
        false => (state.gdtr.base, u32::from(state.gdtr.limit)),
    };
    let offset = selector & !7;
    if u32::from(offset) + 7 > limit {
        return None;
    }
    let mut bytes = [0; 8];
    if !read(base.wrapping_add(offset.into()), &mut bytes) {
        return None;
    }
    let [l0, l1, b0, b1, b2, access, high, b3] = bytes;
    let limit = u32::from_le_bytes([l0, l1, high & 15, 0]);
    let limit = if high & 0x80 != 0 { limit << 12 | 0xfff } else { limit };
    let attributes = u32::from(access) | u32::from(high & 0xf0) << 8;
    Some(Segment { selector, base: u32::from_le_bytes([b0, b1, b2, b3]).into(), limit, attributes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_real_mode_the_base_follows_the_selector() {
        let mut state = CpuState::power_on(0);
        assert!(load(&mut state, 3, 0x1234, &|_, _| false));
        assert_eq!((state.segments[3].base, state.segments[3].limit), (0x12340, 0xffff));
    }

    #[test]
    fn in_protected_mode_it_comes_from_the_table() {
        let mut state = CpuState::power_on(0);
        state.cr0 |= 1;
        state.gdtr.base = 0x1000;
        state.gdtr.limit = 0x17;
        let read = |gva: u64, buf: &mut [u8]| {
            assert_eq!(gva, 0x1010);
            buf.copy_from_slice(&0x12cf_9334_5678_ffff_u64.to_le_bytes());
            true
        };
        assert!(load(&mut state, 3, 0x13, &read));
        let loaded = Segment { selector: 0x13, base: 0x1234_5678, limit: 0xffff_ffff, attributes: 0xc093 };
        assert_eq!(state.segments[3], loaded);
        assert!(!load(&mut state, 3, 0x18, &read), "past the table's end");
        assert!(load(&mut state, 3, 0, &read));
        assert_eq!(state.segments[3].attributes, UNUSABLE);
    }
}
