// What the faders look like and say: methods of block_mixer.js.
import { height, rateAt, tidy } from "blockrate-mixer/numbers.js";

// as text, not as a coloured picture
export const ICE = "❄\uFE0E";

export default {
  text(value) {
    if (value && value < 0.1) return value.toPrecision(2);
    // 0.9999 must not read like 1
    if (value > 0.99 && value < 1) return `${tidy(value)}`;
    return value.toFixed(2);
  },
  high(value) {
    return height(value, this.log);
  },
  // Moved up or down by a part of the fader's way.
  raised(value, by) {
    return tidy(rateAt(this.high(value) + by, this.log));
  },
  marks() {
    const values = this.log ? [1, 0.1, 0.01, 0.001, 0] : [1, 0.75, 0.5, 0.25, 0];
    return values.map((value) => [this.high(value), `${value}`.replace("0.", ".")]);
  },
  // As people write it: 0.0003.
  plainBase() {
    return `${Number(this.base.toPrecision(6))}`;
  },
  // What the last run told of a block, and how high that stands behind its fader.
  behindOf(i) {
    return this.behind?.values[i] ?? null;
  },
  behindHeight(i) {
    const told = this.behind.values.filter((value) => value !== null);
    return this.behindOf(i) / Math.max(...told, Number.MIN_VALUE);
  },
  // What was measured of a block: heights by the largest, and its part of the gain.
  gainOf(i) {
    return this.measured?.blocks[i] ?? null;
  },
  share(i) {
    const { share, share_error: error } = this.gainOf(i);
    return `gain ${(100 * share).toFixed(1)} ± ${(100 * error).toFixed(1)} %`;
  },
  // Exponents with two digits, as the plan prints them.
  rate(i) {
    return this.scientific(this.base * this.vals[i]);
  },
  scientific(value) {
    return value.toExponential(2).replace(/e([+-])(\d)$/, "e$10$2");
  },
  spoken(i) {
    if (this.isOff(i)) return this.off;
    const measured = this.gainOf(i) ? `, ${this.share(i)}` : "";
    if (!this.vals[i]) return `${this.none}${measured}`;
    if (this.scales) return this.text(this.vals[i]);
    return `${this.text(this.vals[i])}, learning rate ${this.rate(i)}${measured}`;
  },
  label(i) {
    if (this.names[i] === "other") return "other weights";
    return this.names[i].replace("_block_", " ");
  },
  look(i) {
    return {
      "is-hot": i === this.shown,
      "is-chosen": this.chosen.includes(i),
      "is-frozen": !this.vals[i],
      "is-off": this.isOff(i),
    };
  },
  frozen({ places }) {
    return places.filter((i) => !this.vals[i] && !this.isOff(i)).length;
  },
  count(bank, of, word) {
    const cold = this.frozen(bank);
    if (cold) return `${ICE} ${cold}${of} ${this.none}`;
    const active = bank.places.filter((i) => !this.isOff(i)).length;
    return `${active}${of} ${word}`;
  },
  // The line over a row of faders and the area below it; a frozen block breaks both.
  curve(row) {
    const heights = row.map((i) => 100 - 100 * this.high(this.vals[i]));
    heights.push(100);
    let area = "";
    let line = "";
    let open = false;
    heights.forEach((y, k) => {
      const trains = y < 100;
      if (trains) {
        line += `${open ? "L" : "M"}${k + 0.5} ${y}`;
        area += `${open ? "" : `M${k} 100V${y}`}L${k + 0.5} ${y}`;
      } else if (open) {
        area += `H${k}V100Z`;
      }
      open = trains;
    });
    return { area, line };
  },
  // The same words twice are news twice.
  tell(news) {
    this.news = "";
    this.$nextTick(() => (this.news = news));
  },
};
