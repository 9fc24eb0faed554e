//! Several files as one input: one behind the other, and then how long each of them is.

/// What ends an input of several files.
const MAGIC: [u8; 8] = *b"segments";
/// Files of an input at most.
const FILES_MAX: usize = 64;
const NUMBER: usize = 4;

/// The files in one.
pub(super) fn join(files: &[Vec<u8>]) -> Vec<u8> {
    let mut joined = files.concat();
    let lens = files.iter().map(Vec::len).chain([files.len()]);
    for number in lens {
        joined.extend(u32::try_from(number).expect("small").to_le_bytes());
    }
    joined.extend(MAGIC);
    joined
}

/// The files in an input; it is one of them where its end does not say otherwise.
pub(super) fn split(data: &[u8]) -> Vec<Vec<u8>> {
    read(data).unwrap_or_else(|| vec![data.to_vec()])
}

fn read(data: &[u8]) -> Option<Vec<Vec<u8>>> {
    let rest = data.strip_suffix(&MAGIC)?;
    let number = |at: usize| {
        let bytes = rest.get(at..)?.first_chunk::<NUMBER>()?;
        usize::try_from(u32::from_le_bytes(*bytes)).ok()
    };
    let count = number(rest.len().checked_sub(NUMBER)?)?;
    let table = rest.len().checked_sub(NUMBER * (count.min(FILES_MAX) + 1))?;
    let mut left = &rest[..table];
    let mut files = Vec::new();
    for no in 0..count.min(FILES_MAX) {
        // A length that was changed moves a border.
        let (file, behind) = left.split_at(number(table + no * NUMBER)?.min(left.len()));
        files.push(file.to_vec());
        left = behind;
    }
    (!files.is_empty()).then_some(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_back_as_they_were_and_nothing_is_more_than_one_file_by_accident() {
        for files in [vec![vec![1, 2, 3]], vec![vec![], vec![7; 100], vec![1]]] {
            assert_eq!(split(&join(&files)), files);
        }
        assert_eq!(split(&[1, 2, 3]), [[1, 2, 3]]);
        assert_eq!(split(b"segments"), [b"segments"]);
        let forged = [&[9; 4][..], &[0xff; 4], b"segments"].concat();
        assert_eq!(split(&forged), [forged]);
    }
}
