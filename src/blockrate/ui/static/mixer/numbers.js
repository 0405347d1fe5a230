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

// All whole numbers between two, both included, whichever is the larger.
export function range(a, b) {
  const least = Math.min(a, b);
  return Array.from({ length: Math.abs(b - a) + 1 }, (_, k) => least + k);
}

export function union(a, b) {
  return [...new Set([...a, ...b])].sort((one, other) => one - other);
}
