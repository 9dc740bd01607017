//! JSON Web Tokens, for checks of whose tokens are believed.
//!
//! Start from [`signed`]; who knows [`KEYS`] believes it. The private keys are no secret: what is signed with them
//! opens nothing but the servers of checks. What a token claims is the check's to say.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::verdict::NoVerdict;

/// The public half of the key that [`signed`] signs with, as a JSON Web Key Set (RFC 7517).
pub const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":"strata","x":"MdsgYffHHDxHTVdC7rYLgvMmj_wCCoCrxidn3Ui0VjA","y":"Smt50vNC2kyj5ucJnVMDHP28AyBv9INoBj_R0W_dqSk"}]}"#;
/// The name that every token gives its key.
const KEY_ID: &str = "strata";
/// PKCS #8, on curve P-256.
const KNOWN: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgkRw2AmEPmqLo/GY9RwZVkEAyBGFEOJQMhw5MnAByu3WhRANCAAQx2yBh98ccPEdNV0LutguC8yaP/AIKgKvGJ2fdSLRWMEpredLzQtpMo+bnCZ1TAxz9vAMgb/SDaAY/0dFv3akp";
const UNKNOWN: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgl8GFNpZzIhM1MrKZJHt1F6vhfZJsxmSkB9mjrZpZMGKhRANCAASVcZq2tcgkjdnYAEUEB9hHwqoyDcJ9fGXg7HJeig93FgT3aF4W+CBOvHhZNk7Ft/6OMnLLFIz7hBR5Em4yji5V";

/// A token that claims this, signed with the known key.
///
/// # Errors
/// When the claims are no object.
pub fn signed(claims: &Value) -> Result<String, NoVerdict> {
    sign(KNOWN, claims)
}

/// The same, signed with another key that calls itself by the known one's name.
///
/// # Errors
/// As [`signed`].
pub fn forged(claims: &Value) -> Result<String, NoVerdict> {
    sign(UNKNOWN, claims)
}

/// The same without a signature, as RFC 7519, 6 has it.
#[must_use]
pub fn unsigned(claims: &Value) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let head = json!({ "alg": "none", "typ": "JWT", "kid": KEY_ID });
    format!("{}.{}.", part(&head), part(claims))
}

fn sign(key: &str, claims: &Value) -> Result<String, NoVerdict> {
    let trouble = |error: &dyn std::fmt::Display| NoVerdict::new(format!("a token: {error}"));
    let key = BASE64_STANDARD
        .decode(key)
        .map_err(|error| trouble(&error))?;
    let head = Header {
        kid: Some(KEY_ID.to_owned()),
        ..Header::new(Algorithm::ES256)
    };
    jsonwebtoken::encode(&head, claims, &EncodingKey::from_ec_der(&key))
        .map_err(|error| trouble(&error))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::jwk::JwkSet;
    use jsonwebtoken::{DecodingKey, Validation};

    use super::*;

    #[test]
    fn only_what_is_signed_is_believed() {
        let claims = json!({ "iss": "issuer.example", "exp": 4_102_444_800_u64 });
        let keys: JwkSet = serde_json::from_str(KEYS).unwrap();
        let key = DecodingKey::from_jwk(&keys.keys[0]).unwrap();
        let believed = |token: &str| {
            jsonwebtoken::decode::<Value>(token, &key, &Validation::new(Algorithm::ES256))
                .map(|read| read.claims)
                .ok()
        };
        assert_eq!(believed(&signed(&claims).unwrap()), Some(claims.clone()));
        assert_eq!(believed(&forged(&claims).unwrap()), None);
        assert_eq!(believed(&unsigned(&claims)), None);
    }
}
