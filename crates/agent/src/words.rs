pub(crate) fn words(secret: &[u8]) -> [String; 5] { let d = skytale_wire::id::Digest::of(&[secret]); std::array::from_fn(|i| format!("{:02x}", d.0[i])) }
