// The loss by steps: raw, smoothed, and of the validation. Points come by `take`, each of them once.
const [WIDE, HIGH, TICKS] = [1000, 1000, 4]; // of the drawing, in its own units, which are stretched to its place
const text = (value) => (value < 0.01 || value >= 1e4 ? value.toExponential(2) : `${+value.toPrecision(3)}`);

function smoothed(values, weight) { // the exponential moving average, without its pull towards zero at the start
  let [mean, share] = [0, 0];
  return values.map((value) => {
    if (value != null) [mean, share] = [weight * mean + (1 - weight) * value, weight * share + (1 - weight)];
    return value == null ? null : mean / share;
  });
}
function ticks(low, top, log) { // round numbers around all values: 1, 2 or 5 times a power of ten apart, or by equal factors
  if (log) return [...Array(TICKS + 1).keys()].map((k) => +((low * 0.95) * (top / low / 0.9) ** (k / TICKS)).toPrecision(2));
  const rough = (top - low || top || 1) / TICKS, power = 10 ** Math.floor(Math.log10(rough));
  const gap = [1, 2, 5, 10].find((times) => times * power >= rough) * power, first = Math.floor(low / gap);
  return [...Array(Math.max(Math.ceil(top / gap) - first, 1) + 1).keys()].map((k) => (first + k) * gap);
}

export default {
  props: { smoothing: Number, log: Boolean },
  emits: ["ready"],
  template: `
    <figure class="loss-chart">
      <p class="chart-bar" aria-hidden="true"><span v-for="(words, name) in told" :class="name">{{ words }}</span></p>
      <div class="chart-body">
        <div class="chart-names" aria-hidden="true"><span v-for="tick in scale" :style="{ top: y(tick) / 10 + '%' }">{{ text(tick) }}</span></div>
        <div class="loss-field" @pointermove="point" @pointerdown="point" @pointerleave="at = null">
          <svg viewBox="0 0 ${WIDE} ${HIGH}" preserveAspectRatio="none" role="img" :aria-label="'Loss. ' + Object.values(told).join(', ')">
            <path class="grid" :d="scale.map((tick) => 'M0 ' + y(tick) + 'H${WIDE}').join('')" />
            <path v-for="(line, name) in lines" :key="name" :class="name" :d="path(line, 'L')" />
            <path class="dots" :d="path(lines.validation, 'h0M')" />
          </svg>
          <i v-if="at !== null" class="loss-cursor" :style="{ left: x(lines.raw.steps[at]) / 10 + '%' }"></i>
        </div>
      </div>
      <div class="chart-steps" aria-hidden="true"><span v-for="step in span">{{ step.toLocaleString("en") }}</span></div>
    </figure>`,
  data: () => ({ turn: 0, at: null }), // turn: counts what was taken; at: the place of the point that is looked at
  created() { this.taken = { raw: { steps: [], values: [] }, validation: { steps: [], values: [] } }; },
  mounted() { this.$emit("ready"); },
  computed: {
    lines() {
      const { raw, validation } = (this.turn, this.taken);
      return { raw, smoothed: { steps: raw.steps, values: smoothed(raw.values, this.smoothing) }, validation };
    },
    span() {
      const steps = [...this.lines.raw.steps, ...this.lines.validation.steps];
      return steps.length ? [Math.min(...steps), Math.max(...steps)] : [];
    },
    scale() {
      const values = Object.values(this.lines).flatMap((line) => line.values).filter((value) => value > 0 || (value != null && !this.log));
      return values.length ? ticks(Math.min(...values), Math.max(...values), this.log) : [0.1, 1];
    },
    told() {
      const { raw, smoothed: line, validation } = this.lines, at = this.at ?? raw.steps.length - 1, step = raw.steps[at];
      const checked = validation.values[validation.steps.findLastIndex((other) => other <= step)];
      const values = Object.entries({ raw: raw.values[at], smoothed: line.values[at], validation: checked }).filter(([, value]) => value != null);
      return step === undefined ? {} : { step: `Step ${step.toLocaleString("en")}`, ...Object.fromEntries(values.map(([name, value]) => [name, `${name} ${text(value)}`])) };
    },
  },
  methods: {
    text,
    take(name, start, steps, values) {
      this.taken[name].steps.splice(start, Infinity, ...steps);
      this.taken[name].values.splice(start, Infinity, ...values);
      [this.turn, this.at] = [this.turn + 1, start ? this.at : null];
    },
    x(step) { return (WIDE * (step - this.span[0])) / (this.span[1] - this.span[0] || 1); },
    y(value) {
      const [low, top, here] = [this.scale[0], this.scale.at(-1), Math.max(value, this.scale[0])].map((each) => (this.log ? Math.log(each) : each));
      return HIGH - (HIGH * (here - low)) / (top - low || 1);
    },
    path({ steps, values }, pen) { // with a gap where there is no value
      return values.map((value, k) => value != null && `${k && values[k - 1] != null ? pen : "M"}${this.x(steps[k]).toFixed(1)} ${this.y(value).toFixed(1)}h0`).filter(Boolean).join("");
    },
    point({ currentTarget, clientX }) {
      const box = currentTarget.getBoundingClientRect(), step = this.span[0] + ((clientX - box.left) / box.width) * (this.span[1] - this.span[0]);
      this.at = this.lines.raw.steps.reduce((best, other, k, all) => (Math.abs(other - step) < Math.abs(all[best] - step) ? k : best), 0);
    },
  },
};
