// The loss by steps: raw, smoothed and on the validation images. Points come by `take`, each of them once.
const TICKS = 4;
const text = (value) => (value < 0.01 || value >= 1e4 ? value.toExponential(1) : `${+value.toPrecision(3)}`);

function smoothed(values, weight) { // the exponential moving average, without its pull towards zero at the start
  let [mean, share] = [0, 0];
  return values.map((value) => {
    if (value == null) return null;
    [mean, share] = [weight * mean + (1 - weight) * value, weight * share + (1 - weight)];
    return mean / share;
  });
}
function ticks(low, top) { // round numbers: 1, 2 or 5 times a power of ten apart
  const rough = (top - low || top || 1) / TICKS, power = 10 ** Math.floor(Math.log10(rough));
  const gap = [1, 2, 5, 10].find((times) => times * power >= rough) * power, first = Math.floor(low / gap);
  return Array.from({ length: Math.ceil(top / gap) - first + 1 }, (_, k) => (first + k) * gap);
}
function logTicks(low, top) {
  const all = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(top)); power += 1) all.push(...[1, 2, 5].map((times) => times * 10 ** power));
  const [first, last] = [all.findLastIndex((tick) => tick <= low), all.findIndex((tick) => tick >= top)];
  const seen = all.slice(Math.max(first, 0), last + 1 || undefined);
  return seen.length > 8 ? seen.filter((tick, k) => !k || k === seen.length - 1 || /^1e/.test(tick.toExponential())) : seen;
}

export default {
  props: { smoothing: Number, log: Boolean },
  emits: ["ready"],
  template: `
    <figure class="loss-chart">
      <div class="chart-bar"><p class="chart-readout">{{ told }}</p>
        <div class="loss-legend" aria-hidden="true"><span v-for="name in kinds" :class="name">{{ name }}</span></div></div>
      <div class="loss-body">
        <div class="loss-ticks" aria-hidden="true"><span v-for="tick in scale" :style="{ top: y(tick) + '%' }">{{ text(tick) }}</span></div>
        <div class="loss-field" @pointermove="point" @pointerdown="point" @pointerleave="at = null">
          <svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" :aria-label="'Loss. ' + told">
            <path class="grid" :d="scale.map((tick) => 'M0 ' + y(tick) + 'H100').join('')" />
            <path v-for="name in kinds" :key="name" :class="name" :d="path(name)" />
            <path class="dots" :d="path('validation', true)" />
          </svg>
          <i v-if="at !== null" class="loss-cursor" :style="{ left: x(lines.raw.steps[at]) + '%' }"></i>
        </div>
      </div>
      <div class="chart-steps" aria-hidden="true"><span v-for="step in ends">{{ step.toLocaleString("en") }}</span></div>
    </figure>`,
  data: () => ({ turn: 0, at: null }),
  created() { this.taken = { raw: { steps: [], values: [] }, validation: { steps: [], values: [] } }; },
  mounted() { this.$emit("ready"); },
  computed: {
    lines() {
      const { raw, validation } = (this.turn, this.taken);
      return { raw, smoothed: { steps: raw.steps, values: smoothed(raw.values, this.smoothing) }, validation };
    },
    kinds() { return Object.keys(this.lines).filter((name) => this.lines[name].steps.length); },
    span() {
      const all = Object.values(this.lines).flatMap((line) => line.steps);
      return [Math.min(...all), Math.max(...all)];
    },
    ends() {
      const [first, last] = this.span;
      return Number.isFinite(first) ? [...new Set([first, Math.round((first + last) / 2), last])] : [];
    },
    scale() {
      const values = this.kinds.flatMap((name) => this.lines[name].values).filter((value) => value != null && !(this.log && value <= 0));
      if (!values.length) return [0, 1];
      const [low, top] = [Math.min(...values), Math.max(...values)];
      return this.log ? logTicks(low, top) : ticks(low, top);
    },
    told() {
      const { raw, smoothed: line, validation } = this.lines, at = this.at ?? raw.steps.length - 1, step = raw.steps[at];
      if (step === undefined) return "";
      const checked = validation.steps.findLastIndex((other) => other <= step), words = [["loss", raw.values[at]], ["smoothed", line.values[at]], ["validation", validation.values[checked]]];
      return [`Step ${step.toLocaleString("en")}`, ...words.filter(([, value]) => value != null).map(([name, value]) => `${name} ${text(value)}`)].join(" · ");
    },
  },
  methods: {
    text,
    take(name, start, steps, values) {
      this.taken[name].steps.splice(start, Infinity, ...steps);
      this.taken[name].values.splice(start, Infinity, ...values);
      this.turn += 1;
      if (!start) this.at = null;
    },
    x(step) { return (100 * (step - this.span[0])) / (this.span[1] - this.span[0] || 1); },
    y(value) {
      const [low, top, here] = [this.scale[0], this.scale.at(-1), Math.max(value, this.scale[0])].map((value) => (this.log ? Math.log(value) : value));
      return 100 - (100 * (here - low)) / (top - low || 1);
    },
    path(name, dots = false) {
      const { steps, values } = this.lines[name];
      let pen = "M";
      return steps.map((step, k) => {
        if (values[k] == null) return (pen = "M"), "";
        const part = `${pen}${this.x(step).toFixed(2)} ${this.y(values[k]).toFixed(2)}${dots ? "h0" : ""}`;
        pen = dots ? "M" : "L";
        return part;
      }).join("");
    },
    point(event) {
      const box = event.currentTarget.getBoundingClientRect(), { steps } = this.lines.raw;
      const step = this.span[0] + ((event.clientX - box.left) / box.width) * (this.span[1] - this.span[0]);
      const next = steps.findIndex((other) => other >= step), last = steps.length - 1;
      this.at = last < 0 ? null : next < 0 ? last : next && step - steps[next - 1] < steps[next] - step ? next - 1 : next;
    },
  },
};
