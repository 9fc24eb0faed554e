//! What is left as bytes at offsets.

use std::io;
use std::sync::{Arc, PoisonError};

use aiv_image_format::BlockIndex;
use aiv_volume_io::ReadAt;

use super::Salvaged;
use super::laid::Failed;

impl Salvaged {
    fn block(&self, block: BlockIndex) -> io::Result<Arc<Vec<u8>>> {
        if let Some((number, bytes)) = &*self.recent.lock().unwrap_or_else(PoisonError::into_inner)
            && *number == block
        {
            return Ok(Arc::clone(bytes));
        }
        let mut bytes = vec![0; self.geometry().block_len(block) as usize];
        let read = self.readers().read(&self.piece_of(block), block, &mut bytes);
        read.map_err(|failed| match failed {
            Failed::Lost(loss) => io::Error::new(io::ErrorKind::InvalidData, loss.to_string()),
            Failed::Error(error) => io::Error::other(error),
        })?;
        let bytes = Arc::new(bytes);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        *recent = Some((block, Arc::clone(&bytes)));
        Ok(bytes)
    }
}

impl ReadAt for Salvaged {
    fn len(&self) -> u64 {
        self.geometry().len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > self.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let size = u64::from(self.geometry().block_size().get());
        let (mut done, mut at) = (0, offset);
        while done < out.len() {
            let bytes = self.block(at / size)?;
            // Below the block size.
            let from = usize::try_from(at % size).map_err(io::Error::other)?;
            let count = (bytes.len() - from).min(out.len() - done);
            out[done..done + count].copy_from_slice(&bytes[from..from + count]);
            done += count;
            at += count as u64;
        }
        Ok(())
    }
}
