// Numbers of charts: how they are written, smoothed and laid between ticks.
const TICKS = 4;
// of the values on either side, that count as outliers
const OUTLIERS = 0.02;

export function text(value) {
  if (value && (Math.abs(value) < 0.01 || Math.abs(value) >= 1e4))
    return value.toExponential(2);
  return `${+value.toPrecision(3)}`;
}

// The exponential moving average, without its pull towards zero at the start.
export function smoothed(values, weight) {
  let mean = 0;
  let share = 0;
  return values.map((value) => {
    if (value == null) return null;
    mean = weight * mean + (1 - weight) * value;
    share = weight * share + (1 - weight);
    return mean / share;
  });
}

// Round numbers around all values: 1, 2 or 5 times a power of ten apart.
function linear(low, top) {
  const rough = (top - low || top || 1) / TICKS;
  const power = 10 ** Math.floor(Math.log10(rough));
  const gap = [1, 2, 5, 10].find((times) => times * power >= rough) * power;
  const first = Math.floor(low / gap);
  const count = Math.max(Math.ceil(top / gap) - first, 1) + 1;
  return Array.from({ length: count }, (_, k) => (first + k) * gap);
}

// Numbers around all values that lie apart by equal factors.
function logarithmic(low, top) {
  const at = (k) => low * 0.95 * (top / low / 0.9) ** (k / TICKS);
  return Array.from({ length: TICKS + 1 }, (_, k) => +at(k).toPrecision(2));
}

// The ticks of a scale that holds these values, or all but the outliers among them.
export function ticks(values, { log, clip }) {
  const known = values.filter((value) => value > 0 || (value != null && !log));
  if (!known.length) return [0.1, 1];
  known.sort((one, other) => one - other);
  const cut = clip ? Math.ceil(OUTLIERS * known.length) : 0;
  const kept = known.length > 2 * cut ? known.slice(cut, known.length - cut) : known;
  return (log ? logarithmic : linear)(kept[0], kept.at(-1));
}

// The place of the entry that is nearest to a number, of numbers that rise; -1 for none.
export function nearest(numbers, wanted) {
  let low = 0;
  let high = numbers.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (numbers[middle] < wanted) low = middle;
    else high = middle;
  }
  if (high < 0) return -1;
  return wanted - numbers[low] <= numbers[high] - wanted ? low : high;
}
