// The numbers of a fader: from 0 (frozen) to 1.

// What is not 0 never becomes 0 by rounding: that would freeze a block.
const SMALLEST = 1e-4;

export function limit(value, least, most) {
  return Math.min(most, Math.max(least, value));
}

// A rate with at most four digits behind the point.
export function tidy(value) {
  if (value <= 0) return 0;
  return limit(Math.round(value * 1e4) / 1e4, SMALLEST, 1);
}

// In a log scale: where the smallest rate stands, and how far it is from there to 1.
const LOWEST = 0.04;
const DECADES = 4;

// How high a rate stands, from 0 to 1.
export function height(value, log) {
  if (!log || value <= 0) return value;
  const share = 1 + Math.log10(Math.max(value, SMALLEST)) / DECADES;
  return LOWEST + (1 - LOWEST) * share;
}

// The rate that stands so high; what lies nearer to 0 than to the smallest is 0.
export function rateAt(y, log) {
  if (!log || y < LOWEST / 2) return log ? 0 : y;
  const share = (y - LOWEST) / (1 - LOWEST);
  return Number((10 ** (DECADES * (limit(share, 0, 1) - 1))).toPrecision(2));
}

// All whole numbers between two, both included, whichever is the larger.
export function range(a, b) {
  const least = Math.min(a, b);
  return Array.from({ length: Math.abs(b - a) + 1 }, (_, k) => least + k);
}

export function union(a, b) {
  return [...new Set([...a, ...b])].sort((one, other) => one - other);
}
