//! Sums that tell damage, not tampering (the journal's chain does that).

/// CRC-64/XZ, eight bytes a step: tables for a byte that 0 to 7 others follow.
#[must_use]
pub fn crc64(bytes: &[u8]) -> u64 {
    let tables = tables();
    let [t0, t1, t2, t3, t4, t5, t6, t7] = &tables;
    let chunks = bytes.chunks_exact(8);
    let rest = chunks.remainder();
    let mut crc = !0_u64;
    for chunk in chunks {
        let word = chunk
            .iter()
            .rev()
            .fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
        let [b0, b1, b2, b3, b4, b5, b6, b7] = (crc ^ word).to_le_bytes();
        crc = at(t7, b0)
            ^ at(t6, b1)
            ^ at(t5, b2)
            ^ at(t4, b3)
            ^ at(t3, b4)
            ^ at(t2, b5)
            ^ at(t1, b6)
            ^ at(t0, b7);
    }
    for byte in rest {
        let [lowest, ..] = crc.to_le_bytes();
        crc = at(t0, lowest ^ byte) ^ (crc >> 8);
    }
    !crc
}

type Table = [u64; 256];

fn at(table: &Table, byte: u8) -> u64 {
    table.get(usize::from(byte)).copied().unwrap_or(0)
}

fn tables() -> [Table; 8] {
    const POLYNOMIAL: u64 = 0xC96C_5795_D787_0F42;
    let mut first = [0_u64; 256];
    for (value, entry) in (0_u64..).zip(first.iter_mut()) {
        *entry = (0..8).fold(value, |crc, _| {
            if crc & 1 == 1 {
                (crc >> 1) ^ POLYNOMIAL
            } else {
                crc >> 1
            }
        });
    }
    let mut tables = [first; 8];
    let mut previous = first;
    for table in tables.iter_mut().skip(1) {
        for (entry, before) in table.iter_mut().zip(previous) {
            let [lowest, ..] = before.to_le_bytes();
            *entry = at(&first, lowest) ^ (before >> 8);
        }
        previous = *table;
    }
    tables
}

/// The running checksum of a `SQLite` write-ahead log behind `data`, whose words are big- or
/// little-endian. What is no whole pair of words at the end is left out. Format:
/// <https://sqlite.org/fileformat2.html#checksum_algorithm>
#[must_use]
pub fn wal_checksum(seed: (u32, u32), data: &[u8], big_endian: bool) -> (u32, u32) {
    let word = if big_endian {
        u32::from_be_bytes
    } else {
        u32::from_le_bytes
    };
    let (mut s0, mut s1) = seed;
    for pair in data.chunks_exact(8) {
        if let [a, b, c, d, e, f, g, h] = *pair {
            s0 = s0.wrapping_add(word([a, b, c, d])).wrapping_add(s1);
            s1 = s1.wrapping_add(word([e, f, g, h])).wrapping_add(s0);
        }
    }
    (s0, s1)
}

#[cfg(test)]
mod tests {
    use super::{crc64, wal_checksum};

    #[test]
    fn crc64_is_that_of_xz_at_every_length() {
        assert_eq!(crc64(b"123456789"), 0x995D_C9BB_DF19_39FA);
        assert_eq!(crc64(b""), 0);
        let bytes: Vec<u8> = (0..100).collect();
        for length in 0..=bytes.len() {
            let taken: Vec<u8> = bytes.iter().copied().take(length).collect();
            let mut crc = !0_u64;
            for byte in &taken {
                crc ^= u64::from(*byte);
                for _ in 0..8 {
                    crc = (crc >> 1)
                        ^ if crc & 1 == 1 {
                            0xC96C_5795_D787_0F42
                        } else {
                            0
                        };
                }
            }
            assert_eq!(crc64(&taken), !crc, "{length}");
        }
    }

    #[test]
    fn a_logs_checksum_adds_pairs_of_words_in_its_byte_order() {
        let data = [0, 0, 0, 1, 0, 0, 0, 2, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 1];
        // 10 + 1 + 20 = 31, 20 + 2 + 31 = 53; 31 - 1 + 53 = 83, 53 + 1 + 83 = 137.
        assert_eq!(wal_checksum((10, 20), &data, true), (83, 137));
        assert_eq!(
            wal_checksum((0, 0), &[1, 0, 0, 0, 2, 0, 0, 0], false),
            (1, 3)
        );
    }
}
