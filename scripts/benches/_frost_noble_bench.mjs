// CPU of @noble/curves for the sessions that frost.py measures, in milliseconds, best of a few runs.
// usage: node _frost_noble_bench.mjs FOLDER t n   →   {"signing": …, "dkg": …}
const base = `${process.argv[2]}/node_modules/@noble/curves`;
const { schnorr_FROST: F } = await import(`${base}/secp256k1.js`);
const [min, max] = process.argv.slice(3).map(Number);
const signers = { min, max };
const message = new Uint8Array(32).fill(7);

function cpu(work) {
  let best = Infinity;
  for (let run = 0; run < 4; run++) {
    const start = process.cpuUsage();
    work();
    const { user, system } = process.cpuUsage(start);
    best = Math.min(best, (user + system) / 1000);
  }
  return best;
}

const { public: pub, secretShares } = F.trustedDealer(signers);
const chosen = Object.keys(secretShares).slice(0, min);
// t signers commit and sign, the coordinator aggregates and verifies
const signing = cpu(() => {
  const nonces = {};
  const list = chosen.map((id) => {
    const made = F.commit(secretShares[id]);
    nonces[id] = made.nonces;
    return made.commitments;
  });
  const shares = {};
  for (const id of chosen) shares[id] = F.signShare(secretShares[id], pub, nonces[id], list, message);
  F.aggregate(pub, list, message, shares);
});

// one participant's part: round1, and rounds 2 and 3 with what the others sent
const ids = Object.keys(secretShares);
const others = ids.slice(1).map((id) => [id, F.DKG.round1(id, signers)]);
const packages = others.map(([, r]) => r.public);
let dkg = Infinity;
for (let run = 0; run < 2; run++) {
  let start = process.cpuUsage();
  const mine = F.DKG.round1(ids[0], signers);
  F.DKG.round2(mine.secret, packages);
  let used = process.cpuUsage(start);
  let total = used.user + used.system;
  const shares = others.map(([id, r]) => {
    const secret = { ...r.secret, round1Cache: undefined, round2Cache: undefined, step: 1 };
    const rest = [mine.public, ...packages.filter((p) => p.identifier !== id)];
    return F.DKG.round2(secret, rest)[ids[0]];
  });
  start = process.cpuUsage();
  F.DKG.round3(mine.secret, packages, shares);
  used = process.cpuUsage(start);
  total += used.user + used.system;
  dkg = Math.min(dkg, total / 1000);
  if (max > 16) break;
}
process.stdout.write(JSON.stringify({ signing, dkg }) + '\n');
