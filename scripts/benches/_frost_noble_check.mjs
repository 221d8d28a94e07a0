// Compares @noble/curves with sessions made in Python, and takes part in key generations with it.
// usage: node _frost_noble_check.mjs FOLDER   (FOLDER/node_modules holds @noble/curves)
// one JSON request per line on stdin, one JSON answer per line on stdout
import { createInterface } from 'node:readline';

const base = `${process.argv[2]}/node_modules/@noble/curves`;
const { secp256k1_FROST, schnorr_FROST, schnorr } = await import(`${base}/secp256k1.js`);
const { ed25519_FROST, ed25519 } = await import(`${base}/ed25519.js`);
const suites = {
  'FROST-secp256k1-SHA256-v1': secp256k1_FROST,
  'FROST-secp256k1-SHA256-TR-v1': schnorr_FROST,
  'FROST-ED25519-SHA512-v1': ed25519_FROST,
};
const un = (text) => Uint8Array.from(Buffer.from(text, 'hex'));
const hex = (bytes) => Buffer.from(bytes).toString('hex');
const mapped = (object, change) =>
  Object.fromEntries(Object.entries(object).map(([key, value]) => [key, change(value)]));

function session(c) {
  const F = suites[c.suite];
  const pub = {
    signers: { min: c.min, max: c.max },
    commitments: [un(c.key)],
    verifyingShares: mapped(c.verifying, un),
  };
  const list = c.commitments.map(([identifier, hiding, binding]) => ({
    identifier,
    hiding: un(hiding),
    binding: un(binding),
  }));
  const message = un(c.message);
  const shares = {};
  for (const [identifier, [secret, hiding, binding]] of Object.entries(c.signers)) {
    const nonces = { hiding: un(hiding), binding: un(binding) };
    const own = { identifier, signingShare: un(secret) };
    shares[identifier] = F.signShare(own, pub, nonces, list, message);
  }
  const [first] = Object.keys(c.signers);
  const accepts = !c.check || F.verifyShare(pub, list, message, first, un(c.shares[first]));
  const signature = F.aggregate(pub, list, message, mapped(c.shares, un));
  let plain = true;
  if (c.check && F === schnorr_FROST) plain = schnorr.verify(signature, message, un(c.key).subarray(1));
  if (c.check && F === ed25519_FROST) plain = ed25519.verify(signature, message, un(c.key));
  return { shares: mapped(shares, hex), signature: hex(signature), accepts, plain };
}

const crews = {};

function round1(c) {
  const F = suites[c.suite];
  const crew = {};
  for (const number of c.numbers) {
    const id = F.Identifier.fromNumber(number);
    crew[id] = F.DKG.round1(id, { min: c.min, max: c.max });
  }
  crews[c.suite] = crew;
  return mapped(crew, ({ public: p }) => [p.commitment.map(hex), hex(p.proofOfKnowledge)]);
}

function packagesOf(c, me) {
  const theirs = Object.entries(c.packages).map(([identifier, [commitment, proof]]) => ({
    identifier,
    commitment: commitment.map(un),
    proofOfKnowledge: un(proof),
  }));
  const ours = Object.entries(crews[c.suite]).filter(([id]) => id !== me).map(([, r]) => r.public);
  return [...theirs, ...ours];
}

function round2(c) {
  const crew = crews[c.suite];
  for (const [id, own] of Object.entries(crew)) {
    own.dealt = suites[c.suite].DKG.round2(own.secret, packagesOf(c, id));
  }
  return mapped(crew, ({ dealt }) => mapped(dealt, (share) => hex(share.signingShare)));
}

function round3(c) {
  const crew = crews[c.suite];
  return mapped(crew, (own) => {
    const me = own.public.identifier;
    const shares = Object.entries(c.shares[me]).map(([identifier, share]) => ({
      identifier,
      signingShare: un(share),
    }));
    for (const [id, other] of Object.entries(crew)) if (id !== me) shares.push(other.dealt[me]);
    const made = suites[c.suite].DKG.round3(own.secret, packagesOf(c, me), shares);
    return {
      key: hex(made.public.commitments[0]),
      verifying: mapped(made.public.verifyingShares, hex),
      share: hex(made.secret.signingShare),
    };
  });
}

const verbs = { session, round1, round2, round3 };
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  let answer;
  try {
    answer = verbs[request.verb](request);
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(JSON.stringify(answer) + '\n');
}
