//! Instructions as text, in AT&T syntax as QEMU's disassembler prints them: the monitor's `x /i`, `-d in_asm`.

use std::fmt::Write as _;

use iced_x86::{Code, Formatter, GasFormatter, Instruction};

/// Eight bytes and the instruction, then what is left of the bytes.
#[must_use]
pub fn disassembly_line(at: u64, code: &[u8], text: &str) -> String {
    let mut out = String::new();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x} ")).collect::<String>();
    let first = &code[..code.len().min(8)];
    let _ = writeln!(out, "0x{at:08x}:  {:<24} {text}", hex(first));
    if let Some(rest) = code.get(8..)
        && !rest.is_empty()
    {
        let _ = writeln!(out, "0x{:08x}:  {}", at.wrapping_add(8), hex(rest).trim_end());
    }
    out
}

/// Writes instructions as QEMU's disassembler does.
pub struct Disassembler(GasFormatter);

impl Default for Disassembler {
    fn default() -> Self {
        let mut formatter = GasFormatter::new();
        let options = formatter.options_mut();
        options.set_gas_show_mnemonic_size_suffix(true);
        options.set_gas_space_after_memory_operand_comma(true);
        options.set_space_after_operand_separator(true);
        options.set_uppercase_hex(false);
        options.set_hex_prefix("0x");
        options.set_hex_suffix("");
        options.set_branch_leading_zeros(false);
        options.set_leading_zeros(false);
        options.set_displacement_leading_zeros(false);
        options.set_rip_relative_addresses(true);
        options.set_add_leading_zero_to_hex_numbers(false);
        options.set_show_branch_size(false);
        Self(formatter)
    }
}

impl Disassembler {
    /// Mnemonic and operands.
    pub fn text(&mut self, instruction: &Instruction) -> String {
        let mut text = String::new();
        self.0.format(instruction, &mut text);
        let (mnemonic, operands) = match text.find(' ') {
            Some(at) => (&text[..at], text[at..].trim_start()),
            None => (text.as_str(), ""),
        };
        let operands = match instruction.code() {
            Code::Jmp_ptr1616 | Code::Call_ptr1616 => {
                format!("${:#x}:${:#x}", instruction.far_branch_selector(), instruction.far_branch16())
            }
            Code::Jmp_ptr1632 | Code::Call_ptr1632 => {
                format!("${:#x}:${:#x}", instruction.far_branch_selector(), instruction.far_branch32())
            }
            // The one-byte forms name the accumulator last.
            Code::Xchg_r16_AX | Code::Xchg_r32_EAX | Code::Xchg_r64_RAX => match operands.split_once(", ") {
                Some((first, second)) => format!("{second}, {first}"),
                None => operands.to_owned(),
            },
            _ => operands.to_owned(),
        };
        format!("{mnemonic:<8} {operands}")
    }
}
