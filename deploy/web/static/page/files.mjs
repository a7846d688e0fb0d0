// Files of the site, each held to the SHA-256 its bundle lists.

/** Return the bytes of {path, sha256}. */
export async function fetchChecked({ path, sha256 }) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: the server answered ${response.status}`);
  const bytes = await response.arrayBuffer();
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const found = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== sha256) throw new Error(`${path}: must have SHA-256 ${sha256.slice(0, 12)}, got ${found.slice(0, 12)}`);
  return bytes;
}
